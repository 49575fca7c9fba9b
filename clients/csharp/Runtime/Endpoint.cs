using System;

namespace MLF
{
    /// <summary>Where a server may have a client connect to.</summary>
    internal static class Endpoint
    {
        /// <summary>No ipc:// or inproc://, which mean this machine; no source address, no
        /// wildcard.</summary>
        /// <exception cref="ZeroMQException">If it isn't tcp://HOST:PORT.</exception>
        public static void Check(string address)
        {
            const string Scheme = "tcp://";
            int colon = address.LastIndexOf(':');
            if (!address.StartsWith(Scheme, StringComparison.Ordinal) || colon <= Scheme.Length)
            {
                throw new ZeroMQException("expected tcp://HOST:PORT");
            }
            string host = address.Substring(Scheme.Length, colon - Scheme.Length);
            string port = address.Substring(colon + 1);
            bool isIPv6 = host.Length > 2 && host[0] == '[' && host[host.Length - 1] == ']';
            string name = isIPv6 ? host.Substring(1, host.Length - 2) : host;
            string others = isIPv6 ? ":." : "._-";
            bool isGood = port.Length <= 5 && IsMadeOf(port, "", false, false)
                && int.Parse(port) > 0 && int.Parse(port) <= 65535
                && IsMadeOf(name, others, true, isIPv6);
            if (!isGood)
            {
                throw new ZeroMQException("expected tcp://HOST:PORT");
            }
        }

        private static bool IsMadeOf(string text, string others, bool letters, bool hexOnly)
        {
            foreach (char letter in text)
            {
                char small = letter >= 'A' && letter <= 'Z' ? (char)(letter + 32) : letter;
                bool isLetter = letters && small >= 'a' && small <= (hexOnly ? 'f' : 'z');
                if (!(isLetter || (letter >= '0' && letter <= '9') || others.IndexOf(letter) >= 0))
                {
                    return false;
                }
            }
            return text.Length > 0;
        }
    }
}
