namespace MLF
{
    /// <summary>A message that a client sends: one of the contract's four requests.</summary>
    public abstract class RequestMessage
    {
        public readonly string MessageType;
        public readonly string ClientID;
        public readonly string InstanceID;

        protected RequestMessage(string messageType, string clientID, string instanceID)
        {
            MessageType = messageType;
            ClientID = clientID;
            InstanceID = instanceID;
        }

        internal abstract void WriteBody(JsonWriter body);
    }

    /// <summary>Asks which state the client is in.</summary>
    public sealed class GetClientState : RequestMessage
    {
        public GetClientState(string clientID, string instanceID)
            : base("GetClientState", clientID, instanceID)
        {
        }

        internal override void WriteBody(JsonWriter body)
        {
            body.String("clientID", ClientID);
            body.String("instanceID", InstanceID);
        }
    }

    /// <summary>The client wants to be in another state.</summary>
    public sealed class SetClientState : RequestMessage
    {
        public readonly EClientState ClientState;
        public readonly long Incarnation;
        public readonly long Sequence;

        public SetClientState(
            string clientID,
            EClientState clientState,
            long incarnation,
            string instanceID,
            long sequence)
            : base("SetClientState", clientID, instanceID)
        {
            ClientState = clientState;
            Incarnation = incarnation;
            Sequence = sequence;
        }

        internal override void WriteBody(JsonWriter body)
        {
            body.String("clientID", ClientID);
            body.String("clientState", ClientStates.Name(ClientState));
            body.Number("incarnation", Incarnation);
            body.String("instanceID", InstanceID);
            body.Number("sequence", Sequence);
        }
    }

    /// <summary>The client leaves of its own will.</summary>
    public sealed class Goodbye : RequestMessage
    {
        public readonly long Incarnation;

        public Goodbye(string clientID, long incarnation, string instanceID)
            : base("Goodbye", clientID, instanceID)
        {
            Incarnation = incarnation;
        }

        internal override void WriteBody(JsonWriter body)
        {
            body.String("clientID", ClientID);
            body.Number("incarnation", Incarnation);
            body.String("instanceID", InstanceID);
        }
    }

    /// <summary>A message of the server.</summary>
    public abstract class ServerMessage
    {
        /// <summary>Whom it is about; null where an error doesn't say.</summary>
        public readonly string ClientID;

        protected ServerMessage(string clientID)
        {
            ClientID = clientID;
        }
    }

    /// <summary>A state of a client, as a reply or a publication tells it.</summary>
    public abstract class StateNews : ServerMessage
    {
        public readonly EClientState ClientState;
        public readonly long Sequence;
        public readonly long Incarnation;

        /// <summary>The process that lives that life; null where none is named.</summary>
        public readonly string InstanceID;

        protected StateNews(
            string clientID,
            EClientState clientState,
            long sequence,
            long incarnation,
            string instanceID)
            : base(clientID)
        {
            ClientState = clientState;
            Sequence = sequence;
            Incarnation = incarnation;
            InstanceID = instanceID;
        }
    }

    /// <summary>The reply to all requests: what the server holds of the client.</summary>
    public sealed class ClientStateMessage : StateNews
    {
        public readonly double TimebombSeconds;
        public readonly double HeartbeatIntervalSeconds;
        public readonly string RequestEndpoint;
        public readonly string StateChangeEndpoint;

        public ClientStateMessage(
            string clientID,
            EClientState clientState,
            long sequence,
            long incarnation,
            double timebombSeconds,
            double heartbeatIntervalSeconds,
            string requestEndpoint,
            string stateChangeEndpoint,
            string instanceID = null)
            : base(clientID, clientState, sequence, incarnation, instanceID)
        {
            TimebombSeconds = timebombSeconds;
            HeartbeatIntervalSeconds = heartbeatIntervalSeconds;
            RequestEndpoint = requestEndpoint;
            StateChangeEndpoint = stateChangeEndpoint;
        }
    }

    /// <summary>Published: a client has changed its state.</summary>
    public sealed class OnStateChange : StateNews
    {
        public readonly EClientState PreviousState;
        public readonly string Reason;

        public OnStateChange(
            string clientID,
            EClientState clientState,
            EClientState previousState,
            string reason,
            long sequence,
            long incarnation,
            string instanceID = null)
            : base(clientID, clientState, sequence, incarnation, instanceID)
        {
            PreviousState = previousState;
            Reason = reason;
        }
    }

    /// <summary>The reply to a request that breaks a rule.</summary>
    public sealed class ErrorMessage : ServerMessage
    {
        public readonly string Code;
        public readonly string Detail;
        public readonly double? RetryAfterSeconds;

        public ErrorMessage(
            string code, string detail, string clientID = null, double? retryAfterSeconds = null)
            : base(clientID)
        {
            Code = code;
            Detail = detail;
            RetryAfterSeconds = retryAfterSeconds;
        }
    }
}
