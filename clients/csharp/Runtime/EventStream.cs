using System;
using System.Collections.Generic;
using System.IO;
using System.Net.Http;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

namespace MLF
{
    /// <summary>One event of a stream.</summary>
    internal sealed class StreamEvent
    {
        public readonly string Name;
        public readonly string Data;

        public StreamEvent(string name, string data)
        {
            Name = name;
            Data = data;
        }
    }

    /// <summary>
    /// Splits a text/event-stream into its events, as bytes come in (contract, section 3a).
    /// Knows no event by name.
    /// </summary>
    internal sealed class EventParser
    {
        // An id goes back in a header: what doesn't fit there would end each next try.
        private const int LongestID = 100;

        private readonly Action<string, string> _dispatch;
        private readonly List<byte> _line = new List<byte>();
        private readonly StringBuilder _data = new StringBuilder();
        private string _name = "";
        private string _lastID;
        private bool _afterReturn;

        /// <param name="dispatch">Is called with the name and the data of each event.</param>
        public EventParser(Action<string, string> dispatch)
        {
            _dispatch = dispatch;
        }

        /// <summary>The id of the last event that came whole; null before any.</summary>
        public string LastID { get; private set; }

        /// <summary>Read some more.</summary>
        /// <exception cref="IOException">If a line or an event is longer than any is.
        /// </exception>
        public void Feed(byte[] bytes, int count)
        {
            for (int at = 0; at < count; at++)
            {
                byte one = bytes[at];
                if (one == '\n' && _afterReturn)
                {
                    _afterReturn = false;  // of the line end that was seen
                    continue;
                }
                _afterReturn = one == '\r';
                if (one == '\n' || one == '\r')
                {
                    EndLine();
                }
                else if (_line.Count + _data.Length < Codec.MaxMessage)
                {
                    _line.Add(one);
                }
                else
                {
                    throw new IOException("The event is longer than any");
                }
            }
        }

        private void EndLine()
        {
            string line = Encoding.UTF8.GetString(_line.ToArray());
            _line.Clear();
            if (line.Length == 0)
            {
                EndEvent();
                return;
            }
            int colon = line.IndexOf(':');
            string field = colon < 0 ? line : line.Substring(0, colon);
            string value = colon < 0 ? "" : line.Substring(colon + 1);
            if (value.StartsWith(" ", StringComparison.Ordinal))
            {
                value = value.Substring(1);
            }
            switch (field)
            {
                case "event":
                    _name = value;
                    break;
                case "data":
                    _data.Append(value).Append('\n');
                    break;
                case "id":
                    _lastID = FitsInAHeader(value) ? value : _lastID;
                    break;
            }
        }

        private static bool FitsInAHeader(string id)
        {
            foreach (char letter in id)
            {
                if (letter < '!' || letter > '~')
                {
                    return false;
                }
            }
            return id.Length > 0 && id.Length <= LongestID;
        }

        private void EndEvent()
        {
            LastID = _lastID;
            if (_data.Length > 0)
            {
                _dispatch(_name, _data.ToString(0, _data.Length - 1));
            }
            _name = "";
            _data.Length = 0;
        }
    }

    /// <summary>
    /// Follows GET /clients/{id}/events: the way of a client without ZeroMQ. One stream at a
    /// time; when it ends or falls silent, that is told, and who owns it opens it anew.
    /// Everything runs on the thread pool. More is read once what was told is dealt with, so a
    /// server that sends without a pause fills no memory.
    /// </summary>
    internal sealed class EventStream
    {
        /// <summary>Seconds of silence after which a line is dead: the server sends a comment
        /// every 5 s.</summary>
        private const double LongestSilence = 15.0;

        private readonly Http _http;
        private readonly string _clientID;
        private CancellationTokenSource _open;
        private string _lastID;

        public EventStream(Http http, string clientID)
        {
            _http = http;
            _clientID = clientID;
        }

        /// <summary>Open it, in place of the one that is open.</summary>
        /// <param name="connected">Is called once it is.</param>
        /// <param name="told">Is called with what came in, and ends when that is dealt with.
        /// </param>
        /// <param name="ended">Is called once, with the reason; not after
        /// <see cref="Close"/>.</param>
        public void Open(
            Action connected, Func<List<StreamEvent>, Task> told, Action<string> ended)
        {
            Close();
            var cancel = new CancellationTokenSource();
            _open = cancel;
            Action<string> end = why =>
            {
                if (!cancel.IsCancellationRequested)
                {
                    ended(why);
                }
            };
            _http.Open(_clientID, _lastID, cancel.Token, (response, refusal) =>
            {
                if (response == null)
                {
                    end(Why(refusal));
                    return;
                }
                if (!cancel.IsCancellationRequested)
                {
                    connected();
                }
                Task.Run(() => Read(response, cancel.Token, told, end));
            });
        }

        /// <summary>Close it; nothing is told any more.</summary>
        public void Close()
        {
            if (_open != null)
            {
                Http.Cancel(_open);
                _open = null;
            }
        }

        private static string Why(Answer refusal)
        {
            if (refusal.Trouble != null)
            {
                return "the event stream can't be opened: " + refusal.Trouble;
            }
            return "the event stream can't be opened: the server answers "
                + Printable.Number(refusal.Status);
        }

        private async Task Read(
            HttpResponseMessage response,
            CancellationToken cancel,
            Func<List<StreamEvent>, Task> told,
            Action<string> end)
        {
            string why = "the event stream has ended";
            var events = new List<StreamEvent>();
            var parser = new EventParser((name, data) => events.Add(new StreamEvent(name, data)));
            using (cancel.Register(response.Dispose))  // some streams don't look at the token
            using (response)
            {
                try
                {
                    Stream stream = await response.Content.ReadAsStreamAsync()
                        .ConfigureAwait(false);
                    var part = new byte[8 * 1024];
                    while (true)
                    {
                        int count = await InTime(stream.ReadAsync(part, 0, part.Length, cancel), cancel)
                            .ConfigureAwait(false);
                        if (count == 0)
                        {
                            break;
                        }
                        events = new List<StreamEvent>();
                        parser.Feed(part, count);
                        if (cancel.IsCancellationRequested)
                        {
                            return;
                        }
                        _lastID = parser.LastID ?? _lastID;
                        await told(events).ConfigureAwait(false);
                    }
                }
                catch (Exception error)  // the kinds differ from one framework to the next
                {
                    why = "the event stream broke: " + error.Message;
                }
            }
            end(why);
        }

        private static async Task<int> InTime(Task<int> reading, CancellationToken cancel)
        {
            using (var over = CancellationTokenSource.CreateLinkedTokenSource(cancel))
            {
                Task silence = Task.Delay(TimeSpan.FromSeconds(LongestSilence), over.Token);
                if (await Task.WhenAny(reading, silence).ConfigureAwait(false) != reading)
                {
                    throw new IOException("nothing came for 15 s");
                }
                over.Cancel();
                return await reading.ConfigureAwait(false);
            }
        }
    }
}
