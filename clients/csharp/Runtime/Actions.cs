namespace MLF
{
    /// <summary>What a session has its driver do, or what it tells the game.</summary>
    public abstract class SessionAction
    {
    }

    /// <summary>POST this; then tell the session how it went, before the next.</summary>
    public sealed class SendHeartbeat : SessionAction
    {
        public readonly MLFHeartbeat Message;

        public SendHeartbeat(MLFHeartbeat message)
        {
            Message = message;
        }
    }

    /// <summary>Call <see cref="Session.Beat"/> that many seconds after the last beat was
    /// sent. What was said before is off.</summary>
    public sealed class BeatAfter : SessionAction
    {
        public readonly double Seconds;

        public BeatAfter(double seconds)
        {
            Seconds = seconds;
        }
    }

    /// <summary>Close the ZeroMQ sockets, if any; connect to these, subscribed to the
    /// client. Who follows by events opens its stream anew.</summary>
    public sealed class OpenSockets : SessionAction
    {
        public readonly string RequestEndpoint;
        public readonly string StateChangeEndpoint;

        public OpenSockets(string requestEndpoint, string stateChangeEndpoint)
        {
            RequestEndpoint = requestEndpoint;
            StateChangeEndpoint = stateChangeEndpoint;
        }

        internal bool IsSame(OpenSockets other)
        {
            return other != null
                && RequestEndpoint == other.RequestEndpoint
                && StateChangeEndpoint == other.StateChangeEndpoint;
        }
    }

    /// <summary>Send this to the request endpoint. Its ID goes with it, and comes back with
    /// its answer.</summary>
    public sealed class SendRequest : SessionAction
    {
        public readonly RequestMessage Message;
        public readonly string RequestID;

        public SendRequest(RequestMessage message, string requestID)
        {
            Message = message;
            RequestID = requestID;
        }
    }

    /// <summary>Call <see cref="Session.AskAgain"/> in so many seconds, and not as said
    /// before.</summary>
    public sealed class AskAgainAfter : SessionAction
    {
        public readonly double Seconds;

        public AskAgainAfter(double seconds)
        {
            Seconds = seconds;
        }
    }

    /// <summary>What the game is told. The server may be hostile, so its words are made
    /// printable.</summary>
    public abstract class MLFEvent : SessionAction
    {
        /// <summary>A sentence for people.</summary>
        public abstract override string ToString();
    }

    /// <summary>The client is in this state now.</summary>
    public sealed class StateChanged : MLFEvent
    {
        public readonly EClientState State;
        public readonly long Incarnation;
        public readonly long Sequence;

        public StateChanged(EClientState state, long incarnation, long sequence)
        {
            State = state;
            Incarnation = incarnation;
            Sequence = sequence;
        }

        public override string ToString()
        {
            return ClientStates.Name(State)
                + " incarnation=" + Printable.Number(Incarnation)
                + " sequence=" + Printable.Number(Sequence);
        }
    }

    /// <summary>The server said no to something, or will. Beats that are refused with one
    /// code in a row are told once. STALE_SEQUENCE and STALE_INCARNATION say that the state
    /// which the game decided on is no more.</summary>
    public sealed class Refused : MLFEvent
    {
        public readonly string Code;
        public readonly string Detail;

        public Refused(string code, string detail)
        {
            Code = Printable.Text(code);
            Detail = Printable.Text(detail);
        }

        public override string ToString()
        {
            return "the server refuses: " + Detail + " (" + Code + ")";
        }
    }

    /// <summary>No beat gets through any more.</summary>
    public sealed class ServerLost : MLFEvent
    {
        public readonly string Detail;

        public ServerLost(string detail)
        {
            Detail = Printable.Text(detail);
        }

        public override string ToString()
        {
            return "no answer, trying again: " + Detail;
        }
    }

    /// <summary>Beats get through, but ZeroMQ (or the event stream) doesn't, and that lasts:
    /// the client follows its state by its beats' replies.</summary>
    public sealed class ZmqLost : MLFEvent
    {
        public readonly string Detail;

        public ZmqLost(string detail)
        {
            Detail = Printable.Text(detail);
        }

        public override string ToString()
        {
            return "no ZeroMQ, following by heartbeats alone: " + Detail;
        }
    }

    /// <summary>After <see cref="ZmqLost"/>: it gets through again.</summary>
    public sealed class ZmqBack : MLFEvent
    {
        public override string ToString()
        {
            return "ZeroMQ gets through again";
        }
    }

    /// <summary>A fault of the client's own, which should not be: it has stopped, for good.
    /// </summary>
    public sealed class Failed : MLFEvent
    {
        public readonly string Detail;

        public Failed(string detail)
        {
            Detail = Printable.Text(detail);
        }

        public override string ToString()
        {
            return "stopped: a fault of the client's own: " + Detail;
        }
    }

    /// <summary>Another process is this client now: this one has stopped, for good.</summary>
    public sealed class Superseded : MLFEvent
    {
        public readonly string Detail;

        public Superseded(string detail)
        {
            Detail = Printable.Text(detail);
        }

        public override string ToString()
        {
            return "stopped: " + Detail;
        }
    }
}
