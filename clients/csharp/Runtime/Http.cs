using System;
using System.Collections.Generic;
using System.IO;
using System.Net;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Threading;
using System.Threading.Tasks;

namespace MLF
{
    /// <summary>What came of a POST.</summary>
    internal sealed class Answer
    {
        /// <summary>HTTP's; 0 if there is no answer.</summary>
        public readonly int Status;

        public readonly byte[] Body;

        /// <summary>Why there is none, perhaps in words of the server; else null.</summary>
        public readonly string Trouble;

        public Answer(int status, byte[] body)
        {
            Status = status;
            Body = body;
        }

        public Answer(string trouble)
        {
            Trouble = trouble;
        }
    }

    /// <summary>
    /// HTTP with a server that may be broken, or hostile: no proxy, no cookie, no redirect, nothing
    /// is unpacked, and an answer has at most <see cref="Codec.MaxMessage"/> bytes.
    ///
    /// Everything runs on the thread pool, since a framework may look up a name before its first
    /// await. What is cancelled leaves no connection open. Knows nothing of what is sent.
    /// </summary>
    internal sealed class Http : IDisposable
    {
        // Beats, requests, the event stream, and those that were given up a moment ago.
        private const int MostConnections = 16;

        private readonly MLFHttpParams _params;
        private readonly HttpClient _client;

        public Http(MLFHttpParams http)
        {
            _params = http;
            var handler = new HttpClientHandler
            {
                AllowAutoRedirect = false,
                AutomaticDecompression = DecompressionMethods.None,
                UseCookies = false,
                UseProxy = false,
            };
            WhereThereIs(() => handler.MaxResponseHeadersLength = Codec.MaxMessage / 1024);
            WhereThereIs(() => handler.MaxConnectionsPerServer = MostConnections);
            // The same for frameworks whose handler has no such limit: theirs is two.
            WhereThereIs(() => ServicePointManager.FindServicePoint(http.Beats)
                .ConnectionLimit = MostConnections);
            _client = new HttpClient(handler) { Timeout = Timeout.InfiniteTimeSpan };
            _client.DefaultRequestHeaders.ExpectContinue = false;
        }

        public void Dispose()
        {
            _client.Dispose();
        }

        /// <summary>Give up what has this token. What is cut may complain of that.</summary>
        public static void Cancel(CancellationTokenSource work)
        {
            try
            {
                work.Cancel();
            }
            catch (AggregateException)
            {
            }
        }

        /// <summary>POST it.</summary>
        /// <param name="done">Is called once, on a thread of the pool.</param>
        public void Post(byte[] body, CancellationToken cancel, Action<Answer> done)
        {
            Task.Run(async () => done(await Try(() => Exchange(body, cancel)).ConfigureAwait(false)));
        }

        /// <summary>Open a stream of events.</summary>
        /// <param name="opened">Is called once, on a thread of the pool, with the response, or
        /// with the reason why there is none.</param>
        public void Open(
            string clientID,
            string lastEventID,
            CancellationToken cancel,
            Action<HttpResponseMessage, Answer> opened)
        {
            Task.Run(async () =>
            {
                HttpResponseMessage response = null;
                Answer refusal = await Try(async () =>
                {
                    response = await Get(clientID, lastEventID, cancel).ConfigureAwait(false);
                    bool isStream = response.StatusCode == HttpStatusCode.OK
                        && response.Content.Headers.ContentType != null
                        && response.Content.Headers.ContentType.MediaType == "text/event-stream";
                    if (isStream)
                    {
                        return null;
                    }
                    using (response)
                    {
                        return await Read(response, cancel).ConfigureAwait(false);
                    }
                }).ConfigureAwait(false);
                opened(refusal == null ? response : null, refusal);
            });
        }

        // Some of Unity's frameworks have a property and nothing behind it.
        private static void WhereThereIs(Action set)
        {
            try
            {
                set();
            }
            catch (NotImplementedException)
            {
            }
            catch (NotSupportedException)  // PlatformNotSupportedException is one
            {
            }
        }

        private static async Task<Answer> Try(Func<Task<Answer>> work)
        {
            try
            {
                return await work().ConfigureAwait(false);
            }
            catch (Exception error)  // HttpClient's kinds differ from one framework to the next
            {
                while (error.InnerException != null)
                {
                    error = error.InnerException;
                }
                return new Answer(error.Message);
            }
        }

        private static async Task<Answer> Read(
            HttpResponseMessage response, CancellationToken cancel)
        {
            using (cancel.Register(response.Dispose))  // some streams don't look at the token
            using (var content = new MemoryStream())
            {
                Stream stream = await response.Content.ReadAsStreamAsync().ConfigureAwait(false);
                var part = new byte[8 * 1024];
                while (true)
                {
                    int count = await stream.ReadAsync(part, 0, part.Length, cancel)
                        .ConfigureAwait(false);
                    if (count == 0)
                    {
                        return new Answer((int)response.StatusCode, content.ToArray());
                    }
                    content.Write(part, 0, count);
                    if (content.Length > Codec.MaxMessage)
                    {
                        throw new IOException(
                            "The answer is longer than " + Printable.Number(Codec.MaxMessage) + " bytes");
                    }
                }
            }
        }

        private async Task<Answer> Exchange(byte[] body, CancellationToken cancel)
        {
            using (var request = new HttpRequestMessage(HttpMethod.Post, _params.Beats))
            {
                request.Content = new ByteArrayContent(body);
                request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
                using (HttpResponseMessage response = await Send(request, cancel).ConfigureAwait(false))
                {
                    return await Read(response, cancel).ConfigureAwait(false);
                }
            }
        }

        private async Task<HttpResponseMessage> Get(
            string clientID, string lastEventID, CancellationToken cancel)
        {
            using (var request = new HttpRequestMessage(HttpMethod.Get, _params.EventsOf(clientID)))
            {
                request.Headers.TryAddWithoutValidation("Accept", "text/event-stream");
                if (lastEventID != null)
                {
                    request.Headers.TryAddWithoutValidation("Last-Event-ID", lastEventID);
                }
                return await Send(request, cancel).ConfigureAwait(false);
            }
        }

        private Task<HttpResponseMessage> Send(HttpRequestMessage request, CancellationToken cancel)
        {
            if (_params.Token != null)
            {
                request.Headers.TryAddWithoutValidation("Authorization", "Bearer " + _params.Token);
            }
            return _client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancel);
        }
    }
}
