using System.Collections.Generic;

namespace MLF
{
    /// <summary>A state that the server was told of.</summary>
    internal sealed class Report
    {
        public readonly EClientState State;

        /// <summary>That of the state that it was decided on.</summary>
        public readonly long Sequence;

        /// <summary>What the answer to it is told apart by.</summary>
        public readonly string RequestID;

        public Report(EClientState state, long sequence, string requestID)
        {
            State = state;
            Sequence = sequence;
            RequestID = requestID;
        }

        /// <summary>Whether that is where it has led to, with nobody else in between.</summary>
        public bool IsTakenBy(EClientState state, long sequence)
        {
            return state == State && sequence == Sequence + 1;
        }
    }

    /// <summary>
    /// The states that a game has reported, and how far the server has come with them.
    /// One is under way at a time, with the sequence of the state that it was decided on: the
    /// server takes it on that state alone. So it may be sent again when no answer comes, and
    /// any later sequence settles it, answer or not: it was taken with the very next one, or
    /// never will be. The others wait, each for the one before it.
    /// </summary>
    internal sealed class Reports
    {
        private readonly List<EClientState> _waiting = new List<EClientState>();

        /// <summary>Sent, and not settled yet; or null.</summary>
        public Report UnderWay { get; private set; }

        /// <summary>Whether the server said that the client has left the state which that one
        /// was decided on; what it is in now is not known yet.</summary>
        public bool IsStale { get; set; }

        /// <summary>A game wants to go on to this state, after those before. A circle is cut
        /// out: so there never wait more than there are states.</summary>
        public void Add(EClientState state)
        {
            int known = _waiting.IndexOf(state);
            if (known < 0)
            {
                _waiting.Add(state);
            }
            else
            {
                _waiting.RemoveRange(known + 1, _waiting.Count - known - 1);
            }
        }

        public bool MayBegin
        {
            get { return UnderWay == null && _waiting.Count > 0; }
        }

        /// <summary>Let the next one be under way, if <see cref="MayBegin"/>.</summary>
        public void Begin(long sequence, string requestID)
        {
            UnderWay = new Report(_waiting[0], sequence, requestID);
            _waiting.RemoveAt(0);
        }

        /// <summary>The one that is under way is settled, in whatever way.</summary>
        public void Settle()
        {
            UnderWay = null;
            IsStale = false;
        }

        /// <summary>Forget all; which states are not reached, in their order.</summary>
        public List<EClientState> Drop()
        {
            var dropped = new List<EClientState>();
            if (UnderWay != null)
            {
                dropped.Add(UnderWay.State);
            }
            dropped.AddRange(_waiting);
            Settle();
            _waiting.Clear();
            return dropped;
        }
    }
}
