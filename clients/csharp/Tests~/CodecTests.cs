using System;
using System.Collections.Generic;
using System.Text;

namespace MLF.Tests
{
    /// <summary>Which bytes are messages of a server, and what is said in them.</summary>
    internal static class CodecTests
    {
        private const string Good =
            "{'sdkVersion':0.1,'timestamp':'','messageType':'ClientState','requestID':'a','body':"
            + "{'clientID':'1','clientState':'RUNNING','sequence':2,'incarnation':1795364991852689,"
            + "'timebombSeconds':10.0,'heartbeatIntervalSeconds':2e0,'requestEndpoint':'tcp://a:1',"
            + "'stateChangeEndpoint':'tcp://a:2','more':[{'a':[1,null,true]}]}}";

        public static IEnumerable<KeyValuePair<string, Action>> All()
        {
            yield return Test("a reply is read, each digit of it", () =>
            {
                string id;
                var reply = (ClientStateMessage)Codec.Decode(Bytes(Good), out id);
                Check.Same(id, "a");
                Check.That(reply.ClientState == EClientState.RUNNING, "state");
                Check.That(reply.Incarnation == 1795364991852689, "incarnation");
                Check.That(reply.HeartbeatIntervalSeconds == 2, "interval");
            });
            foreach (string[] pair in new[]
            {
                new[] { "'clientID':'1'", "'clientID':1" },
                new[] { "'RUNNING'", "3" },
                new[] { "'messageType'", " \\n 'messageType'" },
                new[] { "'a'", "'\\\\u00e9\\\\ud83d\\\\ude00'" },
            })
            {
                yield return Reads(pair[1], Good.Replace(pair[0], pair[1].Replace("\\n", "\n")), true);
            }
            foreach (string[] pair in new[]
            {
                new[] { "'sdkVersion':0.1,", "" },
                new[] { "'sequence':2", "'sequence':-2" },
                new[] { "'sequence':2", "'sequence':2.0" },
                new[] { "'sequence':2", "'sequence':99999999999999999999" },
                new[] { "'sequence':2", "'sequence':02" },
                new[] { "'sequence':2", "'sequence':true" },
                new[] { "'RUNNING'", "'RUNNIN'" },
                new[] { "'RUNNING'", "4" },
                new[] { "10.0", "0" },
                new[] { "10.0", "1e999" },
                new[] { "10.0", "'10'" },
                new[] { "'clientID':'1'", "'clientID':''" },
                new[] { "'clientID':'1'", "'clientID':'..'" },
                new[] { "'clientID':'1'", "'clientID':'a b'" },
                new[] { "'a','body'", "'','body'" },
                new[] { "ClientState", "HEARTBEAT" },
                new[] { "[1,null,true]", "[1,]" },
                new[] { "[1,null,true]", "[1 2]" },
                new[] { "[1,null,true]", "nul" },
                new[] { "}}", "}" },
                new[] { "}}", "}}}" },
                new[] { "'tcp://a:1'", "'tcp://a\n'" },
                new[] { "[1,null,true]", new string('[', 5000) + new string(']', 5000) },
                new[] { "'tcp://a:1'", "'" + new string('x', 70000) + "'" },
            })
            {
                yield return Reads("not " + pair[1], Good.Replace(pair[0], pair[1]), false);
            }
            yield return Test("what is no UTF-8 is no message", () =>
            {
                string id;
                byte[] bytes = Bytes(Good);
                bytes[Array.IndexOf(bytes, (byte)'t', 60)] = 0xff;
                Check.That(Codec.Decode(bytes, out id) == null, "it was read");
            });
            yield return Test("a problem is an error without an envelope", () =>
            {
                ErrorMessage error = Codec.DecodeProblem(Bytes(
                    "{'type':'about:blank','code':'OVERLOADED','detail':'d','retryAfterSeconds':1.5}"));
                Check.Same(error.Code + error.RetryAfterSeconds, "OVERLOADED1.5");
                Check.That(Codec.DecodeProblem(Bytes("[]")) == null, "a list is none");
            });
            yield return Test("whatever is cut off is refused without a crash", () =>
            {
                byte[] whole = Bytes(Good);
                for (int length = 0; length < whole.Length; length++)
                {
                    string id;
                    var part = new byte[length];
                    Array.Copy(whole, part, length);
                    Check.That(Codec.Decode(part, out id) == null, "read " + length + " bytes");
                }
            });
            yield return Test("a server's words are printable", () =>
            {
                Check.Same(Printable.Text("a\u001b[2J\n\u202e\\"), "a\\x1b[2J\\n\\u202e\\");
                Check.That(Printable.Text(new string('x', 400)).Length == 302, "it is too long");
            });
        }

        private static KeyValuePair<string, Action> Reads(string name, string text, bool isRead)
        {
            return Test("reads " + name.Substring(0, Math.Min(40, name.Length)), () =>
            {
                string id;
                Check.That(text != Good, "the example has changed");
                Check.That((Codec.Decode(Bytes(text), out id) != null) == isRead, text.Length > 500 ? "it is" : text);
            });
        }

        private static KeyValuePair<string, Action> Test(string name, Action test)
        {
            return new KeyValuePair<string, Action>(name, test);
        }

        private static byte[] Bytes(string text)
        {
            return Encoding.UTF8.GetBytes(text.Replace('\'', '"'));
        }
    }

    /// <summary>How a stream of events is split.</summary>
    internal static class EventTests
    {
        private const string Stream =
            ": hello\n\nevent: Reset\nid: a-1\ndata: {}\n\nid:a-2\nevent:OnStateChange\r\n"
            + "data: 1\r\ndata:2\r\rid: a-3\ndata: never ended";

        public static IEnumerable<KeyValuePair<string, Action>> All()
        {
            yield return new KeyValuePair<string, Action>("events are read however they come", () =>
            {
                byte[] whole = Encoding.UTF8.GetBytes(Stream);
                for (int size = 1; size <= whole.Length; size++)
                {
                    var heard = new List<string>();
                    var parser = new EventParser((name, data) => heard.Add(name + "=" + data));
                    for (int at = 0; at < whole.Length; at += size)
                    {
                        var part = new byte[Math.Min(size, whole.Length - at)];
                        Array.Copy(whole, at, part, 0, part.Length);
                        parser.Feed(part, part.Length);
                    }
                    Check.Same(string.Join(";", heard), "Reset={};OnStateChange=1\n2");
                    Check.Same(parser.LastID, "a-2");
                }
            });
            yield return new KeyValuePair<string, Action>("an id that fits in no header is not kept", () =>
            {
                var parser = new EventParser((name, data) => { });
                foreach (string id in new[] { "a-1", "\u00e4", "a b", "", new string('a', 101) })
                {
                    byte[] part = Encoding.UTF8.GetBytes("id: " + id + "\ndata: 1\n\n");
                    parser.Feed(part, part.Length);
                    Check.Same(parser.LastID, "a-1");
                }
            });
            yield return new KeyValuePair<string, Action>("no event grows without an end", () =>
            {
                var parser = new EventParser((name, data) => { });
                var part = new byte[1024];
                bool isRefused = false;
                for (int times = 0; times < 1000 && !isRefused; times++)
                {
                    try
                    {
                        parser.Feed(part, part.Length);
                    }
                    catch (System.IO.IOException)
                    {
                        isRefused = true;
                    }
                }
                Check.That(isRefused, "it took a megabyte");
            });
        }
    }
}
