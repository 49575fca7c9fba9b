using System;

namespace MLF
{
    /// <summary>How the service is reached by HTTP.</summary>
    public sealed class MLFHttpParams
    {
        /// <param name="server">The base URL of the service, http[s]://HOST:PORT, with a path
        /// at most.</param>
        /// <param name="token">What a guarded server wants to see with each request; null for
        /// none.</param>
        /// <exception cref="ArgumentException">If one of them can't be used.</exception>
        public MLFHttpParams(string server, string token = null)
        {
            Uri url;
            bool isUrl = Uri.TryCreate(server, UriKind.Absolute, out url)
                && (url.Scheme == "http" || url.Scheme == "https")
                && url.Host.Length > 0
                && url.Port > 0
                && url.UserInfo.Length == 0
                && server.IndexOfAny(new[] { '?', '#', '\\' }) < 0;
            if (!isUrl)
            {
                throw new ArgumentException(
                    "expected http[s]://HOST:PORT, got '" + server + "'", "server");
            }
            if (token != null && !IsToken(token))
            {  // and not a part of it is shown
                throw new ArgumentException("expected one token, without spaces", "token");
            }
            Server = server.TrimEnd('/');
            Token = token;
        }

        public string Server { get; private set; }

        public string Token { get; private set; }

        internal Uri Beats
        {
            get { return new Uri(Server + "/heartbeat"); }
        }

        internal Uri EventsOf(string clientID)
        {
            return new Uri(Server + "/clients/" + Uri.EscapeDataString(clientID) + "/events");
        }

        private static bool IsToken(string text)
        {
            foreach (char letter in text)
            {
                if (letter < '!' || letter > '~')
                {
                    return false;
                }
            }
            return text.Length > 0;
        }
    }
}
