using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Json;
using System.Linq;
using System.Text;

namespace MLF.Tests
{
    /// <summary>What a session decides, against contract/sessions.json (its format:
    /// contract/README.md).</summary>
    internal static class SessionTests
    {
        public static IEnumerable<KeyValuePair<string, Action>> All(string folder)
        {
            string text = File.ReadAllText(Path.Combine(folder, "sessions.json"), Encoding.UTF8);
            foreach (JsonValue scenario in (JsonArray)JsonValue.Parse(text))
            {
                JsonValue one = scenario;
                yield return new KeyValuePair<string, Action>(one["name"], () => Follow(one));
            }
        }

        private static void Follow(JsonValue scenario)
        {
            JsonValue client = scenario["client"];
            var random = new Queue<double>(((JsonArray)client["random"]).Select(Real));
            var ids = new Dictionary<string, string>();
            var session = new Session(
                client["clientID"],
                client["instanceID"],
                random.Dequeue,
                client["timebombSeconds"] == null ? (double?)null : Real(client["timebombSeconds"]));
            int at = 0;
            foreach (JsonValue step in (JsonArray)scenario["steps"])
            {
                string where = "step " + at++ + ": ";
                List<SessionAction> done = Tell(session, step, ids);
                var wanted = (JsonArray)step["actions"];
                string names = string.Join(", ", done.Select(one => one.GetType().Name));
                Check.That(done.Count == wanted.Count, where + "got " + names);
                for (int place = 0; place < wanted.Count; place++)
                {
                    string what = where + "action " + place + ", ";
                    Name(done[place], wanted[place], ids);
                    CheckSame(Written(done[place], ids), wanted[place], what);
                }
                if (step.ContainsKey("patience"))
                {
                    Check.That(
                        Math.Abs(session.Patience - Real(step["patience"])) < 1e-9,
                        where + "its patience is " + session.Patience);
                }
            }
            Check.That(random.Count == 0, "not all random numbers were drawn");
        }

        private static List<SessionAction> Tell(
            Session session, JsonValue step, Dictionary<string, string> ids)
        {
            string id = null;
            if (step.ContainsKey("requestID") && step["requestID"] != null)
            {
                string name = step["requestID"];
                id = ids.ContainsKey(name) ? ids[name] : name;
            }
            switch ((string)step["event"])
            {
                case "beat": return session.Beat(step["values"].ToString());
                case "beatAnswered": return session.BeatAnswered(Reply(step["body"]));
                case "beatRefused": return session.BeatRefused(Error(step["body"]));
                case "beatFailed": return session.BeatFailed(step["detail"]);
                case "requestAnswered": return session.RequestAnswered(Reply(step["body"]), id);
                case "requestRefused": return session.RequestRefused(Error(step["body"]), id);
                case "statePublished": return session.StatePublished(Change(step["body"]));
                case "report": return session.Report(State(step["clientState"]));
                case "askAgain": return session.AskAgain();
                case "zmqConnected": return session.ZmqConnected();
                case "zmqFailed": return session.ZmqFailed(step["detail"]);
                case "leave": return session.Leave();
                default: throw new Exception("there is no event " + Text(step["event"]));
            }
        }

        private static void Name(
            SessionAction done, JsonValue wanted, Dictionary<string, string> ids)
        {
            var request = done as SendRequest;
            if (request != null && wanted.ContainsKey("requestID")
                && !ids.ContainsKey(wanted["requestID"]))
            {
                Check.That(!ids.ContainsValue(request.RequestID), "an ID is used twice");
                ids[wanted["requestID"]] = request.RequestID;
            }
        }

        private static JsonObject Written(SessionAction action, Dictionary<string, string> ids)
        {
            var written = new JsonObject { { "action", action.GetType().Name } };
            var beat = action as SendHeartbeat;
            var after = action as BeatAfter;
            var again = action as AskAgainAfter;
            var sockets = action as OpenSockets;
            var request = action as SendRequest;
            var changed = action as StateChanged;
            var refused = action as Refused;
            if (beat != null)
            {
                written["body"] = Body(beat.Message);
            }
            if (after != null || again != null)
            {
                written["seconds"] = after != null ? after.Seconds : again.Seconds;
            }
            if (sockets != null)
            {
                written["requestEndpoint"] = sockets.RequestEndpoint;
                written["stateChangeEndpoint"] = sockets.StateChangeEndpoint;
            }
            if (request != null)
            {
                written["messageType"] = request.Message.MessageType;
                written["requestID"] = ids.First(one => one.Value == request.RequestID).Key;
                written["body"] = Body(request.Message);
            }
            if (changed != null)
            {
                written["clientState"] = ClientStates.Name(changed.State);
                written["incarnation"] = changed.Incarnation;
                written["sequence"] = changed.Sequence;
            }
            if (refused != null)
            {
                written["code"] = refused.Code;
            }
            string detail = refused != null ? refused.Detail
                : action is ServerLost ? ((ServerLost)action).Detail
                : action is ZmqLost ? ((ZmqLost)action).Detail
                : action is Superseded ? ((Superseded)action).Detail
                : null;
            if (detail != null)
            {
                written["detail"] = detail;
            }
            return written;
        }

        private static JsonValue Body(RequestMessage message)
        {
            var body = new JsonWriter();
            message.WriteBody(body);
            var written = (JsonObject)JsonValue.Parse(body.ToString());
            if (written.ContainsKey("values") && ((JsonObject)written["values"]).Count == 0)
            {
                written.Remove("values");
            }
            return written;
        }

        private static void CheckSame(JsonValue found, JsonValue wanted, string where)
        {
            if (wanted is JsonObject && found is JsonObject)
            {
                string keys = string.Join(" ", ((JsonObject)found).Keys.OrderBy(one => one));
                Check.Same(where + keys,
                    where + string.Join(" ", ((JsonObject)wanted).Keys.OrderBy(one => one)));
                foreach (string key in ((JsonObject)wanted).Keys)
                {
                    CheckSame(found[key], wanted[key], where + key + " ");
                }
            }
            else if (wanted != null && found != null && wanted.JsonType == JsonType.Number
                && found.JsonType == JsonType.Number)
            {
                Check.That(Math.Abs(Real(found) - Real(wanted)) <= 1e-9,
                    where + "got " + Text(found) + ", wanted " + Text(wanted));
            }
            else
            {
                Check.Same(where + Text(found), where + Text(wanted));
            }
        }

        // Whatever kind of number System.Json takes it for.
        private static double Real(JsonValue value)
        {
            return double.Parse(value.ToString(), CultureInfo.InvariantCulture);
        }

        private static string Text(JsonValue value)
        {
            return value == null ? "null" : value.ToString();
        }

        private static EClientState State(JsonValue value)
        {
            EClientState state;
            if (value.JsonType == JsonType.Number)
            {
                return (EClientState)(int)Real(value);
            }
            Check.That(ClientStates.TryParse(value, out state), "no state: " + Text(value));
            return state;
        }

        private static string Optional(JsonValue body, string name)
        {
            return body.ContainsKey(name) ? (string)body[name] : null;
        }

        // Not by the codec: some of these have numbers that it wouldn't let pass.
        private static ClientStateMessage Reply(JsonValue body)
        {
            return new ClientStateMessage(
                body["clientID"],
                State(body["clientState"]),
                (long)Real(body["sequence"]),
                (long)Real(body["incarnation"]),
                Real(body["timebombSeconds"]),
                Real(body["heartbeatIntervalSeconds"]),
                body["requestEndpoint"],
                body["stateChangeEndpoint"],
                Optional(body, "instanceID"));
        }

        private static ErrorMessage Error(JsonValue body)
        {
            return new ErrorMessage(
                body["code"],
                body["detail"],
                Optional(body, "clientID"),
                body.ContainsKey("retryAfterSeconds")
                    ? (double?)Real(body["retryAfterSeconds"]) : null);
        }

        private static OnStateChange Change(JsonValue body)
        {
            return new OnStateChange(
                body["clientID"],
                State(body["clientState"]),
                State(body["previousState"]),
                body["reason"],
                (long)Real(body["sequence"]),
                (long)Real(body["incarnation"]),
                Optional(body, "instanceID"));
        }
    }
}
