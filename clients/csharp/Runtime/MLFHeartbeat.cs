using System.Collections.Generic;

namespace MLF
{
    /// <summary>A beat: the client lives, and says how it is (contract, section 1).</summary>
    public sealed class MLFHeartbeat : RequestMessage
    {
        /// <summary>What the client takes for its state.</summary>
        public readonly EClientState ClientState;

        /// <summary>Seconds to the timebomb, if the client wants its own.</summary>
        public readonly double? TimebombSeconds;

        /// <summary>The telemetry, a JSON object; null without any.</summary>
        public readonly string Values;

        /// <summary>Where the client is and what it is; null if it doesn't say so.</summary>
        public readonly IDictionary<string, string> Labels;

        public MLFHeartbeat(
            string clientID,
            EClientState clientState,
            string instanceID,
            double? timebombSeconds = null,
            string values = null,
            IDictionary<string, string> labels = null)
            : base("HEARTBEAT", clientID, instanceID)
        {
            ClientState = clientState;
            TimebombSeconds = timebombSeconds;
            Values = values;
            Labels = labels;
        }

        internal override void WriteBody(JsonWriter body)
        {
            body.String("clientID", ClientID);
            body.String("clientState", ClientStates.Name(ClientState));
            body.String("instanceID", InstanceID);
            if (TimebombSeconds != null)
            {
                body.Number("timebombSeconds", TimebombSeconds.Value);
            }
            if (Values != null)
            {
                body.Raw("values", Values);
            }
            if (Labels != null)
            {
                var labels = new JsonWriter();
                foreach (KeyValuePair<string, string> label in Labels)
                {
                    labels.String(label.Key, label.Value);
                }
                body.Raw("labels", labels.ToString());
            }
        }
    }
}
