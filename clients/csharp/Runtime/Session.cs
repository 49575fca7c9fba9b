using System;
using System.Collections.Generic;

namespace MLF
{
    /// <summary>
    /// What a game client does, and when: events in, actions out (contract, section 5).
    ///
    /// Each method is something that happened; it returns what is to be done about it, in
    /// order. Knows no socket, no clock and no thread, so that every order in which replies
    /// can overtake each other can be tried. It decides as the Python client's session does;
    /// contract/sessions.json holds both to it.
    ///
    /// What the game reports is fenced (Reports.cs): it is taken on the state that it was
    /// decided on, or not at all. Each report ends with the game being told: the state that it
    /// wanted, or <see cref="Refused"/>, or <see cref="Superseded"/>.
    ///
    /// The server may be broken, or hostile. It can't make a client fall silent, or beat
    /// without a pause; what it says of another client is ignored; its words are printable in
    /// events.
    /// </summary>
    public sealed class Session
    {
        /// <summary>Seconds between beats, until the server has told its own.</summary>
        public const double FirstInterval = 2.0;

        /// <summary>Seconds to a timebomb, until the server has told its own.</summary>
        public const double FirstTimebomb = 10.0;

        /// <summary>No server makes a client beat faster than this, in seconds.</summary>
        public const double ShortestInterval = 0.01;

        /// <summary>The bounds of a fuse, in seconds (contract, section 2).</summary>
        public const double ShortestFuse = 0.1;

        /// <summary>See <see cref="ShortestFuse"/>.</summary>
        public const double LongestFuse = 3600.0;

        /// <summary>The longest that a client waits before it tries a lost server again, in
        /// seconds. It never waits for more than half of its fuse, so that it lives when the
        /// server was only stalled; nor for less than its interval.</summary>
        public const double LongestBackoff = 15.0;

        /// <summary>The longest that it waits for an answer, in seconds, unless its interval
        /// is longer.</summary>
        public const double LongestPatience = 15.0;

        /// <summary>How long a request waits for its answer before it is sent again, in
        /// seconds (contract, section 5).</summary>
        public const double AnswerPatience = 2.0;

        private readonly Func<double> _random;
        private readonly double? _ownTimebomb;
        private readonly IDictionary<string, string> _labels;
        private readonly Reports _reports = new Reports();
        private readonly ZmqOutage _outage = new ZmqOutage();
        private OpenSockets _endpoints;
        private double _timebomb = FirstTimebomb;
        private int _failures;
        private string _trouble;
        private bool _isBeating;
        private long _sequenceAtBeat;
        private long _toldByBeat;
        private long _published;
        private long _requests;
        private string _asking;
        private bool _mayAsk = true;

        /// <param name="clientID">A well-formed client ID.</param>
        /// <param name="instanceID">Names this process, so that a former one can't pass for it.
        /// </param>
        /// <param name="random">A number from 0 to 1, for the jitter of the backoff.</param>
        /// <param name="ownTimebomb">Seconds to the timebomb, if the client wants its own.
        /// </param>
        /// <param name="labels">Where the client is and what it is; null if it doesn't say so.
        /// </param>
        public Session(
            string clientID,
            string instanceID,
            Func<double> random,
            double? ownTimebomb = null,
            IDictionary<string, string> labels = null)
        {
            _labels = labels;
            ClientID = clientID;
            InstanceID = instanceID;
            _random = random;
            _ownTimebomb = ownTimebomb;
        }

        public string ClientID { get; private set; }

        public string InstanceID { get; private set; }

        /// <summary>The state that was last applied.</summary>
        public EClientState State { get; private set; }

        /// <summary>This client's life, as the last beat's reply named it.</summary>
        public long Incarnation { get; private set; }

        /// <summary>That of the last applied state of this life; 0 before any.</summary>
        public long Sequence { get; private set; }

        /// <summary>Whether GetClientState was answered once.</summary>
        public bool Initialised { get; private set; }

        /// <summary>Whether another process is this client now.</summary>
        public bool IsSuperseded { get; private set; }

        /// <summary>Seconds from one beat to the next.</summary>
        public double Interval { get; private set; } = FirstInterval;

        /// <summary>Seconds after which a beat without an answer has failed.</summary>
        public double Patience
        {
            get { return Math.Max(Interval, Math.Min(LongestPatience, _timebomb / 2)); }
        }

        /// <summary>It is time to beat. Not before the last beat was answered or failed.
        /// </summary>
        /// <param name="values">The telemetry, a JSON object; null without any.</param>
        public List<SessionAction> Beat(string values = null)
        {
            if (IsSuperseded)
            {
                return Nothing();
            }
            _isBeating = true;
            _sequenceAtBeat = Sequence;
            return One(new SendHeartbeat(
                new MLFHeartbeat(
                ClientID, State, InstanceID, _ownTimebomb, values, _labels)));
        }

        /// <summary>
        /// A beat's reply: the only word that can tell of a new life. Beats are answered one by
        /// one, so what it says of the incarnation is never out of date, and never about
        /// another process. A sequence below the one at which the beat was sent tells that the
        /// server itself has gone back, or that a former word was wrong: what it says now holds.
        /// </summary>
        public List<SessionAction> BeatAnswered(ClientStateMessage reply)
        {
            if (IsSuperseded)
            {
                return Nothing();
            }
            if (reply.ClientID != ClientID || !IsThisProcess(reply))
            {
                return BeatFailed("The server answered for another client");
            }
            _isBeating = false;
            _failures = 0;
            _trouble = null;
            _mayAsk = true;
            _timebomb = Math.Min(Math.Max(reply.TimebombSeconds, ShortestFuse), LongestFuse);
            Interval = Math.Max(
                Math.Min(reply.HeartbeatIntervalSeconds, _timebomb / 2), ShortestInterval);
            var actions = new List<SessionAction>();
            bool goneBack = reply.Sequence < _sequenceAtBeat;
            if (reply.Incarnation != Incarnation || goneBack)
            {
                Incarnation = reply.Incarnation;
                Sequence = 0;
                _toldByBeat = _published = 0;
                GiveUp(actions, "STALE_INCARNATION", "a new life has begun");
            }
            var endpoints = new OpenSockets(reply.RequestEndpoint, reply.StateChangeEndpoint);
            bool isFirst = _endpoints == null;
            // What a beat told first was not even published since: libzmq gives a connection
            // up for good once it has read what is no ZMTP, or too long.
            bool isDeaf = _toldByBeat > _published;
            _toldByBeat = 0 < Sequence && Sequence < reply.Sequence ? reply.Sequence : 0;
            bool isCutOff = !isFirst && _outage.Lasts(Interval, Patience);
            if (isCutOff && _outage.Tell())
            {
                actions.Add(new ZmqLost(_outage.Trouble));
            }
            if (!endpoints.IsSame(_endpoints) || isDeaf || isCutOff)
            {
                _endpoints = endpoints;
                _outage.Begins();
                actions.Add(endpoints);
            }
            if (!Initialised)
            {
                Ask(actions);
            }
            if (!isFirst)  // the first state is that of GetClientState's answer
            {
                Apply(actions, reply);
            }
            actions.Add(new BeatAfter(Interval));
            return actions;
        }

        /// <summary>A beat got no answer that makes sense, or the server has no time for it.
        /// </summary>
        /// <param name="retryAfter">Seconds that the server asks for; it gets half the fuse.
        /// </param>
        public List<SessionAction> BeatFailed(string detail, double? retryAfter = null)
        {
            if (IsSuperseded)
            {
                return Nothing();
            }
            _isBeating = false;
            _failures++;
            double wait = Math.Max(Backoff(), NoLongerThanHalfTheFuse(retryAfter));
            var actions = new List<SessionAction>();
            TellOnce(actions, "", new ServerLost(detail));
            actions.Add(new BeatAfter(wait));
            return actions;
        }

        /// <summary>A beat was answered with an error.</summary>
        public List<SessionAction> BeatRefused(ErrorMessage error)
        {
            if (IsSuperseded)
            {
                return Nothing();
            }
            if (IsAnothers(error))
            {
                return BeatFailed("The server answered for another client");
            }
            if (error.Code == "INSTANCE_SUPERSEDED")
            {
                return Stop(error.Detail);
            }
            if (error.Code == "OVERLOADED")  // it passes, as an outage does
            {
                return BeatFailed(error.Detail, error.RetryAfterSeconds);
            }
            _isBeating = false;
            var actions = new List<SessionAction>();
            TellOnce(actions, error.Code, new Refused(error.Code, error.Detail));
            if (error.Code == "LOCKED_OUT")  // it is let in by a beat, so it goes on beating
            {
                actions.Add(new BeatAfter(Interval));
                return actions;
            }
            _failures++;
            actions.Add(new BeatAfter(Backoff()));
            return actions;
        }

        /// <summary>GetClientState, SetClientState or Goodbye was answered.</summary>
        /// <param name="requestID">Which of them; null from a server of version 1.</param>
        public List<SessionAction> RequestAnswered(
            ClientStateMessage reply, string requestID = null)
        {
            var actions = new List<SessionAction>();
            if (IsSuperseded || !IsOfThisLife(reply))
            {
                return actions;
            }
            Initialised = true;
            Apply(actions, reply);
            bool isAsked = requestID == null || requestID == _asking;
            if (isAsked)
            {
                _asking = null;
                _mayAsk = true;
            }
            Report report = _reports.UnderWay;
            if (report == null)
            {
                return actions;
            }
            if (requestID == report.RequestID
                || (requestID == null && reply.ClientState == report.State))
            {  // it was there already, so nothing has changed
                _reports.Settle();
                ReportNext(actions);
            }
            else if (isAsked && _reports.IsStale)  // so it says, and yet it knows no other
            {
                GiveUp(actions, "STALE_SEQUENCE", "the server says so");
            }
            return actions;
        }

        /// <summary>GetClientState, SetClientState or Goodbye was answered with an error.
        /// </summary>
        /// <param name="requestID">Which of them; null from a server of version 1.</param>
        public List<SessionAction> RequestRefused(ErrorMessage error, string requestID = null)
        {
            var actions = new List<SessionAction>();
            if (IsSuperseded || IsAnothers(error))
            {
                return actions;
            }
            if (error.Code == "INSTANCE_SUPERSEDED")
            {
                return Stop(error.Detail);
            }
            Report report = _reports.UnderWay;
            bool isStale = _reports.IsStale;
            if (report != null && !isStale
                && (requestID == null || requestID == report.RequestID))
            {
                ReportRefused(actions, error);
                return actions;
            }
            if (requestID != null && requestID != _asking)
            {
                return actions;  // it comes late: what was asked is settled
            }
            _asking = null;
            if (isStale)
            {
                RefuseForGood(actions, error);
            }
            else
            {
                Refuse(actions, error);
            }
            return actions;
        }

        /// <summary>
        /// A publication came in. One of another life waits for a beat's reply. If that one may
        /// be another process's, the server is asked at once: it alone can say that this process
        /// is superseded. If it tells of this life's death, a beat begins the next.
        /// </summary>
        public List<SessionAction> StatePublished(OnStateChange change)
        {
            var actions = new List<SessionAction>();
            if (IsSuperseded || change.ClientID != ClientID)
            {
                return actions;
            }
            if (!IsOfThisLife(change))
            {
                bool isNewer = change.Incarnation > Incarnation;
                bool isOwn = change.InstanceID == InstanceID;
                if (isNewer && !isOwn)
                {
                    AskOnce(actions);
                }
                return actions;
            }
            _published = Math.Max(_published, change.Sequence);
            bool hasMissedSome = change.Sequence - 1 > Sequence;
            bool isApplied = Apply(actions, change);
            if (isApplied && State == EClientState.DISCONNECTED)
            {
                BeatNow(actions);
            }
            else if (hasMissedSome)
            {
                AskOnce(actions);
            }
            return actions;
        }

        /// <summary>Publications may have been missed, as a Reset of the event stream says: ask.
        /// </summary>
        public List<SessionAction> PublicationsLost()
        {
            var actions = new List<SessionAction>();
            if (!IsSuperseded)
            {
                AskOnce(actions);
            }
            return actions;
        }

        /// <summary>The game wants to be in another state; the server decides. It waits for
        /// what was reported before.</summary>
        public List<SessionAction> Report(EClientState state)
        {
            var actions = new List<SessionAction>();
            if (IsSuperseded)
            {
                return actions;
            }
            if (Sequence == 0)
            {
                actions.Add(new Refused("UNKNOWN_CLIENT", "not registered yet"));
                return actions;
            }
            _reports.Add(state);
            ReportNext(actions);
            return actions;
        }

        /// <summary>An answer has been waited for long enough.</summary>
        public List<SessionAction> AskAgain()
        {
            var actions = new List<SessionAction>();
            if (IsSuperseded || _reports.UnderWay == null)
            {
                return actions;
            }
            if (_reports.IsStale)
            {
                FindOut(actions);
            }
            else
            {
                SendReport(actions);
            }
            return actions;
        }

        /// <summary>Both ZeroMQ sockets have shaken hands with the server, or the event stream
        /// has begun.</summary>
        public List<SessionAction> ZmqConnected()
        {
            if (!IsSuperseded && _outage.Ends())
            {
                return One(new ZmqBack());
            }
            return Nothing();
        }

        /// <summary>One of them has lost the server, or can't reach it; it tries again. That is
        /// told when it lasts (<see cref="ZmqLost"/>).</summary>
        public List<SessionAction> ZmqFailed(string detail)
        {
            if (!IsSuperseded)
            {
                _outage.Begins(detail);
            }
            return Nothing();
        }

        /// <summary>The game ends; if the server knows of this life, say Goodbye.</summary>
        public List<SessionAction> Leave()
        {
            if (IsSuperseded)
            {
                return Nothing();
            }
            _reports.Drop();
            if (_endpoints == null)
            {
                return Nothing();
            }
            return One(new SendRequest(new Goodbye(ClientID, Incarnation, InstanceID), NewID()));
        }

        private static List<SessionAction> Nothing()
        {
            return new List<SessionAction>();
        }

        private static List<SessionAction> One(SessionAction action)
        {
            return new List<SessionAction> { action };
        }

        private bool IsOfThisLife(StateNews news)
        {
            return news.ClientID == ClientID
                && news.Incarnation == Incarnation
                && IsThisProcess(news);
        }

        private bool IsThisProcess(StateNews news)
        {
            return news.InstanceID == null || news.InstanceID == InstanceID;
        }

        private bool IsAnothers(ErrorMessage error)
        {
            return error.ClientID != null && error.ClientID != ClientID;
        }

        /// <summary>The event, unless the beat before was in the same trouble.</summary>
        private void TellOnce(List<SessionAction> actions, string trouble, MLFEvent news)
        {
            bool isKnown = _trouble == trouble;
            _trouble = trouble;
            if (!isKnown)
            {
                actions.Add(news);
            }
        }

        private List<SessionAction> Stop(string detail)
        {
            IsSuperseded = true;
            _reports.Drop();
            return One(new Superseded(detail));
        }

        private string NewID()
        {
            _requests++;
            return Printable.Number(_requests);
        }

        private void Ask(List<SessionAction> actions)
        {
            _asking = NewID();
            _mayAsk = false;
            actions.Add(new SendRequest(new GetClientState(ClientID, InstanceID), _asking));
        }

        /// <summary>Ask, unless that is under way: no flood of publications makes another one.
        /// An answer that is lost is waited for until the next beat.</summary>
        private void AskOnce(List<SessionAction> actions)
        {
            if (_mayAsk)
            {
                Ask(actions);
            }
        }

        private void ReportNext(List<SessionAction> actions)
        {
            string requestID = NewID();
            if (_reports.MayBegin)
            {
                _reports.Begin(Sequence, requestID);
                SendReport(actions);
            }
        }

        private void SendReport(List<SessionAction> actions)
        {
            Report report = _reports.UnderWay;
            var message = new SetClientState(
                ClientID, report.State, Incarnation, InstanceID, report.Sequence);
            actions.Add(new SendRequest(message, report.RequestID));
            actions.Add(new AskAgainAfter(AnswerPatience));
        }

        private void FindOut(List<SessionAction> actions)
        {
            Ask(actions);
            actions.Add(new AskAgainAfter(AnswerPatience));
        }

        private void ReportRefused(List<SessionAction> actions, ErrorMessage error)
        {
            if (error.Code == "OVERLOADED")
            {
                double wait = NoLongerThanHalfTheFuse(error.RetryAfterSeconds);
                actions.Add(new AskAgainAfter(Math.Max(AnswerPatience, wait)));
                return;
            }
            if (error.Code == "STALE_SEQUENCE")
            {
                // Perhaps by itself, and its answer was lost: what it is in now will tell.
                _reports.IsStale = true;
                FindOut(actions);
                return;
            }
            _reports.Settle();
            if (error.Code == "ILLEGAL_TRANSITION")
            {
                Refuse(actions, error);
                ReportNext(actions);
                return;
            }
            RefuseForGood(actions, error);
        }

        private void RefuseForGood(List<SessionAction> actions, ErrorMessage error)
        {
            Refuse(actions, error);
            GiveUp(actions, error.Code, error.Detail);
        }

        private void Refuse(List<SessionAction> actions, ErrorMessage error)
        {
            actions.Add(new Refused(error.Code, error.Detail));
            if (error.Code == "UNKNOWN_CLIENT" || error.Code == "STALE_INCARNATION")
            {
                BeatNow(actions);
            }
        }

        /// <summary>This life is over: a beat tells what is. One that is under way does.
        /// </summary>
        private void BeatNow(List<SessionAction> actions)
        {
            if (!_isBeating)
            {
                actions.Add(new BeatAfter(ShortestInterval));
            }
        }

        private void GiveUp(List<SessionAction> actions, string code, string why)
        {
            foreach (EClientState state in _reports.Drop())
            {
                actions.Add(new Refused(code, ClientStates.Name(state) + " was not reached: " + why));
            }
        }

        /// <summary>Whether it was newer.</summary>
        private bool Apply(List<SessionAction> actions, StateNews news)
        {
            if (news.Sequence <= Sequence)
            {
                return false;
            }
            Sequence = news.Sequence;
            State = news.ClientState;
            actions.Add(new StateChanged(State, Incarnation, Sequence));
            SettleReport(actions);
            return true;
        }

        /// <summary>The client has left the state that the one under way was decided on.
        /// </summary>
        private void SettleReport(List<SessionAction> actions)
        {
            Report report = _reports.UnderWay;
            if (report == null)
            {
                return;
            }
            if (State == report.State)
            {
                _reports.Settle();
            }
            if (report.IsTakenBy(State, Sequence))
            {
                ReportNext(actions);
            }
            else
            {
                GiveUp(actions, "STALE_SEQUENCE", "another change came before it");
            }
        }

        /// <summary>What a server asks for, within bounds; 0 if it is nothing, or no number.
        /// </summary>
        private double NoLongerThanHalfTheFuse(double? seconds)
        {
            if (seconds == null || !(seconds.Value > 0))
            {
                return 0;
            }
            return Math.Min(seconds.Value, _timebomb / 2);
        }

        private double Backoff()
        {
            double ceiling = Math.Max(Math.Min(LongestBackoff, _timebomb / 2), Interval);
            double longest = Math.Min(Interval * Math.Pow(2, Math.Min(_failures, 16)), ceiling);
            return Interval + _random() * (longest - Interval);
        }
    }
}
