using System;

namespace MLF
{
    /// <summary>The state of a game client, with its number on the wire
    /// (contract, section 1).</summary>
    public enum EClientState
    {
        DISCONNECTED = 0,
        UNCALIBRATED = 1,
        CALIBRATED = 2,
        RUNNING = 3,
    }

    /// <summary>The states' names on the wire. Not by Enum.ToString, which reflects.</summary>
    public static class ClientStates
    {
        private static readonly string[] Names =
        {
            "DISCONNECTED", "UNCALIBRATED", "CALIBRATED", "RUNNING",
        };

        public static string Name(EClientState state)
        {
            return Names[(int)state];
        }

        /// <summary>Whether there is a state of that name.</summary>
        public static bool TryParse(string name, out EClientState state)
        {
            int number = Array.IndexOf(Names, name);
            state = number < 0 ? EClientState.DISCONNECTED : (EClientState)number;
            return number >= 0;
        }
    }
}
