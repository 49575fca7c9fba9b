using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Threading;
using System.Threading.Tasks;

namespace MLF
{
    /// <summary>
    /// A game client: beats while it runs, and follows its state.
    ///
    /// One background thread of its own does all that <see cref="Session"/> says: HTTP, ZeroMQ
    /// or the event stream, timers. What the game is told waits in a queue until the game calls
    /// <see cref="Update"/>, on whichever thread it likes. <see cref="Stop"/> returns at once;
    /// the thread says Goodbye and ends within <see cref="LongestFarewell"/>, also where the
    /// server doesn't answer. Nothing here is static, so several clients, and several starts
    /// in an editor, don't know of each other.
    /// </summary>
    public sealed class MLFGameClient : IDisposable
    {
        /// <summary>How long a client that was stopped takes to end at the most, in seconds.
        /// </summary>
        public const double LongestFarewell = 2.5;

        // How long it waits for its last beat's answer, and for its Goodbye's, in seconds.
        private const double Farewell = 1.0;

        // The longest that the thread waits in one piece, in milliseconds: an editor that
        // unloads its code can't interrupt native code.
        private const int LongestWait = 250;

        // The most messages that are read before timers have their turn: no flood silences it.
        private const int ReadBudget = 100;

        private const int MostLabels = 8;

        // How many events wait for a game that doesn't call Update; the oldest are dropped.
        private const int MostEvents = 1000;

        // Before a broken event stream is opened anew, in seconds; twice as long each time.
        private const double FirstPause = 0.5;
        private const double LongestPause = 10.0;

        private readonly object _lock = new object();
        private readonly Queue<Action> _posted = new Queue<Action>();
        private readonly Queue<MLFEvent> _events = new Queue<MLFEvent>();
        private readonly AutoResetEvent _bell = new AutoResetEvent(false);
        private readonly Stopwatch _clock = Stopwatch.StartNew();
        private readonly MLFHttpParams _params;
        private readonly IZeroMQ _zeroMQ;
        private readonly Func<string> _values;
        private readonly Session _session;

        // Of the client's own thread alone.
        private readonly Random _random = new Random(Guid.NewGuid().GetHashCode());
        private Http _http;
        private EventStream _stream;
        private bool _socketsAreOpen;
        private double _sentAt;
        private double? _beatAt;
        private double? _askAt;
        private double? _openAt;
        private double? _patienceEndsAt;
        private double? _endAt;
        private double _pause = FirstPause;
        private CancellationTokenSource _inFlight;
        private int _beats;
        private int _streams;
        private string _farewell;
        private bool _takesBeatsOnly;
        private bool _leaves;
        private bool _isOver;

        private Thread _thread;
        private volatile bool _hasEnded;

        /// <param name="http">How the service is reached.</param>
        /// <param name="clientID">1 to 64 characters of A-Z a-z 0-9 . _ : @ -.</param>
        /// <param name="zeroMQ">What to follow the state by; null for GET /clients/{id}/events,
        /// which needs no ZeroMQ.</param>
        /// <param name="timebombSeconds">Seconds to the timebomb, if the client wants its own.
        /// </param>
        /// <param name="values">Returns the telemetry of a beat, a JSON object; it is called on
        /// the client's own thread. What is none is left out.</param>
        /// <param name="labels">Where the client is and what it is: at most 8, names and values of
        /// the letters of an ID. Null if it doesn't say so.</param>
        /// <exception cref="ArgumentException">If one of them can't be used.</exception>
        public MLFGameClient(
            MLFHttpParams http,
            string clientID,
            IZeroMQ zeroMQ = null,
            double? timebombSeconds = null,
            Func<string> values = null,
            IDictionary<string, string> labels = null)
        {
            if (http == null)
            {
                throw new ArgumentNullException("http");
            }
            if (!Codec.IsClientID(clientID))
            {
                throw new ArgumentException(
                    "expected 1 to 64 characters of A-Z a-z 0-9 . _ : @ -, but not . or .., got '"
                    + clientID + "'", "clientID");
            }
            if (timebombSeconds != null
                && !(timebombSeconds > 0 && timebombSeconds < double.PositiveInfinity))
            {
                throw new ArgumentException("expected a number above 0", "timebombSeconds");
            }
            _params = http;
            _zeroMQ = zeroMQ;
            _values = values;
            _session = new Session(
                clientID, Guid.NewGuid().ToString(), _random.NextDouble, timebombSeconds,
                Checked(labels));
        }

        /// <summary>Raised by <see cref="Update"/> for each thing that the game is told.
        /// </summary>
        public event Action<MLFEvent> OnEvent;

        /// <summary>The state that was last told by <see cref="Update"/>.</summary>
        public EClientState State { get; private set; }

        /// <summary>Whether its thread has ended.</summary>
        public bool HasEnded
        {
            get { return _hasEnded; }
        }

        /// <summary>Begin to beat.</summary>
        /// <exception cref="InvalidOperationException">If it was started before.</exception>
        public void Start()
        {
            if (_thread != null)
            {
                throw new InvalidOperationException("a client is started once");
            }
            _thread = new Thread(Run) { IsBackground = true, Name = "MLFGameClient" };
            _thread.Start();
        }

        /// <summary>Tell the game what has happened. Call it on the game's thread, once a
        /// frame, say.</summary>
        public void Update()
        {
            while (true)
            {
                MLFEvent next;
                lock (_lock)
                {
                    if (_events.Count == 0)
                    {
                        return;
                    }
                    next = _events.Dequeue();
                }
                var changed = next as StateChanged;
                if (changed != null)
                {
                    State = changed.State;
                }
                Action<MLFEvent> hears = OnEvent;
                if (hears != null)
                {
                    hears(next);
                }
            }
        }

        /// <summary>Ask the server to change this client's state. It ends with an event:
        /// <see cref="StateChanged"/>, <see cref="Refused"/> or <see cref="Superseded"/>.
        /// </summary>
        public void Report(EClientState state)
        {
            Post(() => Perform(_session.Report(state)));
        }

        /// <summary>Say Goodbye and end. Returns at once; <see cref="Update"/> may be called
        /// on.</summary>
        public void Stop()
        {
            Post(Leave);
        }

        /// <summary>Stop, and wait for the end, for <see cref="LongestFarewell"/> at the most.
        /// </summary>
        public void Dispose()
        {
            Stop();
            if (_thread != null && _thread != Thread.CurrentThread)
            {
                _thread.Join(TimeSpan.FromSeconds(LongestFarewell));
            }
        }

        private static IDictionary<string, string> Checked(IDictionary<string, string> labels)
        {
            if (labels == null)
            {
                return null;
            }
            foreach (KeyValuePair<string, string> label in labels)
            {
                if (labels.Count > MostLabels
                    || !Codec.IsLabel(label.Key) || !Codec.IsLabel(label.Value))
                {
                    throw new ArgumentException(
                        "expected at most 8, names and values of 1 to 64 characters of A-Z a-z 0-9"
                        + " . _ : @ -", "labels");
                }
            }
            return new Dictionary<string, string>(labels);  // its own: the game's may change
        }

        private void Post(Action action)
        {
            lock (_lock)
            {
                if (_hasEnded)
                {
                    return;
                }
                _posted.Enqueue(action);
            }
            _bell.Set();
            if (_zeroMQ != null)
            {
                _zeroMQ.Wake();
            }
        }

        private double Now
        {
            get { return _clock.Elapsed.TotalSeconds; }
        }

        private void Run()
        {
            try
            {
                _http = new Http(_params);
                _stream = new EventStream(_http, _session.ClientID);
                RunPosted();  // perhaps it was stopped before it was started
                if (!_isOver)
                {
                    Beat();
                }
                while (!_isOver)
                {
                    RunPosted();
                    RunTimers();
                    ReceiveAll();
                    if (!_isOver)
                    {
                        Wait();
                    }
                }
            }
            catch (Exception error)  // else it would end the whole game
            {
                Tell(new Failed(error.ToString()));
            }
            finally
            {
                End();
            }
        }

        // No more than were there, so that no flood keeps it from its beats.
        private void RunPosted()
        {
            Action[] posted;
            lock (_lock)
            {
                posted = _posted.ToArray();
                _posted.Clear();
            }
            foreach (Action next in posted)
            {
                next();
            }
        }

        private void End()
        {
            try
            {
                CloseAll();
            }
            catch (Exception error)  // on a thread of its own it would end the whole game
            {
                Tell(new Failed(error.ToString()));
            }
            lock (_lock)
            {
                _hasEnded = true;
                _posted.Clear();
            }
        }

        private void RunTimers()
        {
            if (IsDue(ref _patienceEndsAt))
            {
                EndFlight();
                BeatIsOver(_session.BeatFailed("There was no answer in time"));
            }
            if (IsDue(ref _beatAt))
            {
                Beat();
            }
            if (IsDue(ref _askAt))
            {
                Perform(_session.AskAgain());
            }
            if (IsDue(ref _openAt))
            {
                OpenStream();
            }
            if (IsDue(ref _endAt))
            {
                _isOver = true;
            }
        }

        private bool IsDue(ref double? at)
        {
            if (at == null || at > Now)
            {
                return false;
            }
            at = null;
            return true;
        }

        private void Wait()
        {
            double wait = LongestWait / 1000.0;
            foreach (double? at in new[] { _patienceEndsAt, _beatAt, _askAt, _openAt, _endAt })
            {
                if (at != null)
                {
                    wait = Math.Min(wait, at.Value - Now);
                }
            }
            int milliseconds = (int)Math.Ceiling(Math.Max(0, wait) * 1000);
            if (_socketsAreOpen)
            {
                lock (_lock)
                {
                    milliseconds = _posted.Count == 0 ? milliseconds : 0;
                }
                _zeroMQ.Wait(milliseconds);
            }
            else
            {
                _bell.WaitOne(milliseconds);  // it has rung if something was posted since
            }
        }

        private void Perform(List<SessionAction> actions)
        {
            foreach (SessionAction action in actions)
            {
                Perform(action);
            }
        }

        private void Perform(SessionAction action)
        {
            var send = action as SendHeartbeat;
            var request = action as SendRequest;
            var beatAfter = action as BeatAfter;
            var askAgain = action as AskAgainAfter;
            var endpoints = action as OpenSockets;
            if (send != null)
            {
                Post(send.Message);
            }
            else if (beatAfter != null)
            {
                _beatAt = _leaves ? (double?)null : _sentAt + beatAfter.Seconds;
            }
            else if (request != null)
            {
                Request(request);
            }
            else if (askAgain != null)
            {
                _askAt = _leaves ? (double?)null : Now + askAgain.Seconds;
            }
            else if (endpoints != null)
            {
                Open(endpoints);
            }
            else
            {
                Tell((MLFEvent)action);
            }
        }

        private void Tell(MLFEvent what)
        {
            if (what is Superseded || what is Failed)
            {
                _beatAt = _askAt = null;
                _isOver = true;
            }
            else if (_leaves && !(what is StateChanged))
            {
                return;  // it has stopped, and asks for nothing any more
            }
            lock (_lock)
            {
                if (_events.Count == MostEvents)
                {
                    _events.Dequeue();
                }
                _events.Enqueue(what);
            }
        }

        private void Beat()
        {
            Perform(_session.Beat(Telemetry()));
        }

        private string Telemetry()
        {
            try
            {
                string values = _values == null ? null : _values();
                return values != null && Codec.IsObject(values) ? values : null;
            }
            catch (Exception)  // the game's own fault must not stop its heart
            {
                return null;
            }
        }

        private void Post(MLFHeartbeat beat)
        {
            _sentAt = Now;
            _patienceEndsAt = _sentAt + _session.Patience;
            _inFlight = new CancellationTokenSource();
            int number = ++_beats;
            _http.Post(Codec.Encode(beat), _inFlight.Token, answer => Post(() =>
            {
                if (number == _beats && _inFlight != null)
                {
                    EndFlight();
                    BeatIsOver(Understand(answer));
                }
            }));
        }

        private void EndFlight()
        {
            Http.Cancel(_inFlight);
            _inFlight = null;
            _patienceEndsAt = null;
        }

        private void BeatIsOver(List<SessionAction> actions)
        {
            Perform(actions);
            if (_leaves && !_isOver)
            {
                SayGoodbye();
            }
        }

        private List<SessionAction> Understand(Answer answer)
        {
            if (answer.Trouble != null)
            {
                return _session.BeatFailed(answer.Trouble);
            }
            string requestID;
            ServerMessage message = answer.Status == 200
                ? Codec.Decode(answer.Body, out requestID)
                : Codec.DecodeProblem(answer.Body);
            var reply = message as ClientStateMessage;
            var error = message as ErrorMessage;
            if (reply != null)
            {
                return _session.BeatAnswered(reply);
            }
            if (error != null)
            {
                return _session.BeatRefused(error);
            }
            return _session.BeatFailed(
                "The server answered " + Printable.Number(answer.Status) + " in no known way");
        }

        private void Request(SendRequest request)
        {
            byte[] content = Codec.Encode(request.Message, request.RequestID);
            if (_zeroMQ != null)
            {
                if (_socketsAreOpen)
                {
                    _zeroMQ.Send(content);
                }
                return;
            }
            bool isQuestion = request.Message is GetClientState;
            if (isQuestion && _takesBeatsOnly)
            {
                return;
            }
            var patience = new CancellationTokenSource(
                TimeSpan.FromSeconds(Session.AnswerPatience));
            _http.Post(content, patience.Token, answer => Post(() =>
            {
                string requestID;
                ServerMessage message = answer.Trouble != null ? null
                    : answer.Status == 200 ? Codec.Decode(answer.Body, out requestID)
                    : Codec.DecodeProblem(answer.Body);
                var error = message as ErrorMessage;
                if (isQuestion && error != null && error.Code == "BAD_MESSAGE")
                {
                    _takesBeatsOnly = true;  // an older server: its beats' answers tell it, too
                    return;
                }
                Answered(message, request.RequestID);
            }));
        }

        private void Answered(ServerMessage message, string requestID)
        {
            var reply = message as ClientStateMessage;
            var error = message as ErrorMessage;
            if (reply != null)
            {
                Perform(_session.RequestAnswered(reply, requestID));
            }
            else if (error != null)
            {
                Perform(_session.RequestRefused(error, requestID));
            }
            bool isFarewell = requestID == null
                ? _session.State == EClientState.DISCONNECTED || error != null
                : requestID == _farewell;
            if (_farewell != null && isFarewell && (reply != null || error != null))
            {
                _isOver = true;
            }
        }

        private void ReceiveAll()
        {
            if (!_socketsAreOpen)
            {
                return;
            }
            string trouble;
            if (_zeroMQ.HasChanged(out trouble))
            {
                Perform(trouble == null ? _session.ZmqConnected() : _session.ZmqFailed(trouble));
            }
            for (int left = ReadBudget; left > 0 && _socketsAreOpen; left--)
            {
                byte[] content = _zeroMQ.Receive();
                if (content == null)
                {
                    return;
                }
                string requestID;
                ServerMessage message = Codec.Decode(content, out requestID);
                var change = message as OnStateChange;
                if (change != null)
                {
                    Perform(_session.StatePublished(change));
                }
                else
                {
                    Answered(message, requestID);
                }
            }
        }

        private void Open(OpenSockets endpoints)
        {
            if (_zeroMQ == null)
            {
                OpenStream();
                return;
            }
            try
            {
                _socketsAreOpen = false;
                Endpoint.Check(endpoints.RequestEndpoint);
                Endpoint.Check(endpoints.StateChangeEndpoint);
                _zeroMQ.Open(
                    endpoints.RequestEndpoint,
                    endpoints.StateChangeEndpoint,
                    "OnStateChange/" + _session.ClientID + "/");
                _socketsAreOpen = true;
            }
            catch (ZeroMQException error)
            {  // it can still beat, and the server may name better ones tomorrow
                _zeroMQ.Close();
                Perform(_session.ZmqFailed(
                    "can't connect to " + endpoints.RequestEndpoint + " and "
                    + endpoints.StateChangeEndpoint + ": " + error.Message));
            }
        }

        private void OpenStream()
        {
            _openAt = null;
            int number = ++_streams;  // what one says that was replaced since is of no use
            _stream.Open(
                () => Post(() =>
                {
                    if (number == _streams)
                    {
                        _pause = FirstPause;
                        _takesBeatsOnly = false;  // it may be a newer server now
                        Perform(_session.ZmqConnected());
                    }
                }),
                Hear,
                why => Post(() =>
                {
                    if (number == _streams)
                    {
                        StreamEnded(why);
                    }
                }));
        }

        private Task Hear(List<StreamEvent> events)
        {
            var dealtWith = new TaskCompletionSource<bool>(
                TaskCreationOptions.RunContinuationsAsynchronously);
            Post(() =>
            {
                events.ForEach(Hear);
                dealtWith.SetResult(true);
            });
            return dealtWith.Task;
        }

        private void Hear(StreamEvent one)
        {
            OnStateChange change = one.Name == "OnStateChange" ? Codec.DecodeEvent(one.Data) : null;
            if (change != null)
            {
                Perform(_session.StatePublished(change));
            }
            else if (one.Name == "Reset")
            {
                Perform(_session.PublicationsLost());
            }
        }

        private void StreamEnded(string why)
        {
            Perform(_session.ZmqFailed(why));
            if (!_leaves && !_session.IsSuperseded)
            {
                _openAt = Now + _pause * (1 + _random.NextDouble());
                _pause = Math.Min(2 * _pause, LongestPause);
            }
        }

        private void Leave()
        {
            if (_leaves || _isOver)
            {
                return;
            }
            _leaves = true;
            _beatAt = _askAt = _openAt = null;
            if (_inFlight == null)
            {
                SayGoodbye();
                return;
            }
            // A beat that overtakes the Goodbye would register the client anew.
            _patienceEndsAt = Math.Min(_patienceEndsAt.Value, Now + Farewell);
        }

        private void SayGoodbye()
        {
            if (_farewell != null)
            {
                return;
            }
            _isOver = true;
            foreach (SessionAction action in _session.Leave())
            {
                _farewell = ((SendRequest)action).RequestID;
                _endAt = Now + Farewell;
                _isOver = _zeroMQ != null && !_socketsAreOpen;  // else wait for its answer
                Perform(action);
            }
        }

        private void CloseAll()
        {
            if (_inFlight != null)
            {
                Http.Cancel(_inFlight);
            }
            if (_stream != null)
            {
                _stream.Close();
            }
            if (_zeroMQ != null)
            {
                _socketsAreOpen = false;
                _zeroMQ.Close();
            }
            if (_http != null)
            {
                _http.Dispose();
            }
        }
    }
}
