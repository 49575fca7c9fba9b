using System;
using System.Collections.Generic;
using System.Threading;

namespace MLF.Tests
{
    /// <summary>What a game can ask of a client, and when; no server is needed.</summary>
    internal static class ClientTests
    {
        // Nobody listens there.
        private static readonly MLFHttpParams Nobody = new MLFHttpParams("http://127.0.0.1:1");

        public static IEnumerable<KeyValuePair<string, Action>> All()
        {
            yield return Test("stopped before it is started, it ends without a beat", () =>
            {
                var told = new List<MLFEvent>();
                var client = new MLFGameClient(Nobody, "1");
                client.OnEvent += told.Add;
                client.Stop();
                client.Start();
                Await(() => client.HasEnded);
                client.Update();
                Check.That(told.Count == 0, "it told something");
            });
            yield return Test("a transport that breaks is told of, and ends the client alone", () =>
            {
                MLFEvent told = null;
                var client = new MLFGameClient(Nobody, "1", new Broken());
                client.OnEvent += what => told = what;
                client.Start();
                client.Stop();
                Await(() => client.HasEnded);
                client.Update();
                Check.That(told is Failed, "told: " + told);
                client.Report(EClientState.CALIBRATED);  // nobody is left to hear it
                client.Dispose();
            });
            yield return Test("a beat carries the labels", () =>
            {
                var labels = new Dictionary<string, string> { { "room", "3" }, { "kind", "vr" } };
                var session = new Session("1", "i", () => 0, null, labels);
                var body = new JsonWriter();
                ((SendHeartbeat)session.Beat()[0]).Message.WriteBody(body);
                Check.That(
                    body.ToString().EndsWith(",\"labels\":{\"room\":\"3\",\"kind\":\"vr\"}}"),
                    body.ToString());
            });
            yield return Test("after a Reset it asks for its state, once", () =>
            {
                var session = new Session("1", "i", () => 0);
                List<SessionAction> first = session.PublicationsLost();
                Check.That(
                    first.Count == 1 && ((SendRequest)first[0]).Message is GetClientState, "no request");
                Check.That(session.PublicationsLost().Count == 0, "it asked twice");
            });
            yield return Test("telemetry is a JSON object, or it is left out", () =>
            {
                Check.That(Codec.IsObject("{\"fps\":72.0}"), "an object");
                foreach (string text in new[] { "", "[]", "1", "{", "{}}", "{\"fps\":NaN}" })
                {
                    Check.That(!Codec.IsObject(text), text);
                }
            });
            foreach (double timebomb in new[] { 0, -1, double.NaN, double.PositiveInfinity })
            {
                yield return Refused(() => new MLFGameClient(Nobody, "1", null, timebomb));
            }
            yield return Refused(() => new MLFGameClient(null, "1"));
            yield return Refused(() => new MLFGameClient(Nobody, null));
            foreach (string bad in new[] { "", "a b", null, new string('a', 65) })
            {
                var labels = new Dictionary<string, string> { { "room", bad } };
                yield return Refused(() => new MLFGameClient(Nobody, "1", null, null, null, labels));
            }
        }

        private static KeyValuePair<string, Action> Test(string name, Action test)
        {
            return new KeyValuePair<string, Action>(name, test);
        }

        private static KeyValuePair<string, Action> Refused(Action made)
        {
            return Test("what can't be used is refused at once", () =>
            {
                try
                {
                    made();
                }
                catch (ArgumentException)
                {
                    return;
                }
                throw new Exception("it was taken");
            });
        }

        private static void Await(Func<bool> isSo)
        {
            for (int times = 0; times < 1000 && !isSo(); times++)
            {
                Thread.Sleep(10);
            }
            Check.That(isSo(), "it didn't come to that in 10 s");
        }

        private sealed class Broken : IZeroMQ
        {
            public void Open(string requestEndpoint, string stateChangeEndpoint, string topic)
            {
            }

            public void Send(byte[] content)
            {
            }

            public void Wait(int milliseconds)
            {
            }

            public void Wake()
            {
            }

            public byte[] Receive()
            {
                return null;
            }

            public bool HasChanged(out string trouble)
            {
                trouble = null;
                return false;
            }

            public void Close()
            {
                throw new InvalidOperationException("as a driver might");
            }
        }
    }
}
