namespace MLF
{
    /// <summary>
    /// Whether ZeroMQ (or the event stream) gets through while beats do, and whether the game
    /// knows. Counted in beats that were answered, not by a timer: while beats fail too, the
    /// whole server is lost, and that is told already.
    /// </summary>
    internal sealed class ZmqOutage
    {
        private bool _connected;
        private double _away;  // in seconds
        private bool _told;

        /// <summary>Why it is away, for people.</summary>
        public string Trouble { get; private set; } = "";

        /// <summary>All have shaken hands; whether the game has to be told.</summary>
        public bool Ends()
        {
            _connected = true;
            _away = 0;
            bool told = _told;
            _told = false;
            return told;
        }

        /// <summary>A connection was lost, or isn't made yet.</summary>
        /// <param name="trouble">Why, if that is known.</param>
        public void Begins(string trouble = "")
        {
            _connected = false;
            Trouble = trouble.Length > 0 ? trouble : Trouble;
        }

        /// <summary>A beat was answered; whether it has been away for too long, once more.
        /// </summary>
        /// <param name="interval">Seconds since the beat before.</param>
        /// <param name="patience">Seconds that it may be away.</param>
        public bool Lasts(double interval, double patience)
        {
            if (_connected)
            {
                return false;
            }
            _away += interval;
            if (_away <= patience)
            {
                return false;
            }
            _away = 0;
            return true;
        }

        /// <summary>Whether the game has to be told of it: once, until it is over.</summary>
        public bool Tell()
        {
            bool told = _told;
            _told = true;
            return !told;
        }
    }
}
