using System;
using System.Globalization;
using System.Text;

namespace MLF
{
    /// <summary>
    /// Bytes to messages and back: the only place where messages are read or written. Fields
    /// that aren't known are ignored; a known one that is missing or ill-typed is an error, and
    /// the whole message is none.
    /// </summary>
    internal static class Codec
    {
        /// <summary>What each message says of its sender; no rule depends on it.</summary>
        public const double SdkVersion = 0.1;

        /// <summary>The longest message that is read, in bytes.</summary>
        public const int MaxMessage = 64 * 1024;

        private const int LongestWord = 64;

        /// <summary>A request in its envelope.</summary>
        /// <param name="requestID">Comes back with the answer; null for none.</param>
        public static byte[] Encode(RequestMessage message, string requestID = null)
        {
            var body = new JsonWriter();
            message.WriteBody(body);
            var envelope = new JsonWriter();
            envelope.Number("sdkVersion", SdkVersion);
            envelope.String("timestamp", DateTime.Now.ToString(
                "yyyy-MM-dd HH:mm:ss.ffffff", CultureInfo.InvariantCulture));
            envelope.String("messageType", message.MessageType);
            envelope.Raw("body", body.ToString());
            if (requestID != null)
            {
                envelope.String("requestID", requestID);
            }
            return new UTF8Encoding(false).GetBytes(envelope.ToString());
        }

        /// <summary>Read a reply or a publication.</summary>
        /// <param name="requestID">Of its envelope; null if it has none.</param>
        /// <returns>null for anything else.</returns>
        public static ServerMessage Decode(byte[] data, out string requestID)
        {
            requestID = null;
            if (data.Length > MaxMessage)
            {
                return null;
            }
            try
            {
                Json envelope = JsonReader.Read(data);
                Required(envelope, "sdkVersion", JsonKind.Number);
                Required(envelope, "timestamp", JsonKind.String);
                string messageType = Required(envelope, "messageType", JsonKind.String).Text;
                string named = Word(envelope, "requestID");
                ServerMessage message = Body(messageType, Required(envelope, "body", JsonKind.Object));
                requestID = named;
                return message;
            }
            catch (BadJson)
            {
                return null;
            }
        }

        /// <summary>Read a problem of HTTP: an error without an envelope.</summary>
        /// <returns>null for anything else.</returns>
        public static ErrorMessage DecodeProblem(byte[] data)
        {
            if (data.Length > MaxMessage)
            {
                return null;
            }
            try
            {
                return Error(JsonReader.Read(data));
            }
            catch (BadJson)
            {
                return null;
            }
        }

        /// <summary>Read the data of an OnStateChange in an event stream: it has no envelope.
        /// </summary>
        /// <returns>null for anything else.</returns>
        public static OnStateChange DecodeEvent(string data)
        {
            try
            {
                return Change(JsonReader.Read(data));
            }
            catch (BadJson)
            {
                return null;
            }
        }

        /// <summary>Whether a beat may have that for its values.</summary>
        public static bool IsObject(string text)
        {
            try
            {
                return JsonReader.Read(text).Kind == JsonKind.Object;
            }
            catch (BadJson)
            {
                return false;
            }
        }

        /// <summary>Whether the contract allows that client ID.</summary>
        public static bool IsClientID(string text)
        {
            return text != "." && text != ".." && IsLabel(text);
        }

        /// <summary>Whether a label may have it for its name, or its value.</summary>
        public static bool IsLabel(string text)
        {
            if (string.IsNullOrEmpty(text) || text.Length > LongestWord)
            {
                return false;
            }
            foreach (char letter in text)
            {
                bool isAllowed = (letter >= 'A' && letter <= 'Z')
                    || (letter >= 'a' && letter <= 'z')
                    || (letter >= '0' && letter <= '9')
                    || "._:@-".IndexOf(letter) >= 0;
                if (!isAllowed)
                {
                    return false;
                }
            }
            return true;
        }

        private static ServerMessage Body(string messageType, Json body)
        {
            switch (messageType)
            {
                case "ClientState":
                    return Reply(body);
                case "Error":
                    return Error(body);
                case "OnStateChange":
                    return Change(body);
                default:
                    throw new BadJson("Expected one of ClientState, Error, OnStateChange");
            }
        }

        private static ClientStateMessage Reply(Json body)
        {
            return new ClientStateMessage(
                ClientID(body, true),
                State(body, "clientState"),
                Count(body, "sequence"),
                Count(body, "incarnation"),
                Fuse(body, "timebombSeconds"),
                Fuse(body, "heartbeatIntervalSeconds"),
                Required(body, "requestEndpoint", JsonKind.String).Text,
                Required(body, "stateChangeEndpoint", JsonKind.String).Text,
                Word(body, "instanceID"));
        }

        private static ErrorMessage Error(Json body)
        {
            Json retryAfter = Optional(body, "retryAfterSeconds", JsonKind.Number);
            return new ErrorMessage(
                Required(body, "code", JsonKind.String).Text,
                Required(body, "detail", JsonKind.String).Text,
                ClientID(body, false),
                retryAfter == null ? (double?)null : Real(retryAfter));
        }

        private static OnStateChange Change(Json body)
        {
            return new OnStateChange(
                ClientID(body, true),
                State(body, "clientState"),
                State(body, "previousState"),
                Required(body, "reason", JsonKind.String).Text,
                Count(body, "sequence"),
                Count(body, "incarnation"),
                Word(body, "instanceID"));
        }

        private static Json Optional(Json of, string name, JsonKind kind)
        {
            Json value = of[name];
            if (value != null && value.Kind != kind)
            {
                throw new BadJson("Expected another kind of " + name);
            }
            return value;
        }

        private static Json Required(Json of, string name, JsonKind kind)
        {
            Json value = Optional(of, name, kind);
            if (value == null)
            {
                throw new BadJson("Expected " + name);
            }
            return value;
        }

        private static string ClientID(Json body, bool isRequired)
        {
            Json value = body["clientID"];
            if (value == null && !isRequired)
            {
                return null;
            }
            bool isNumber = value != null && value.Kind == JsonKind.Number && IsInteger(value.Text);
            if (value == null || !(isNumber || value.Kind == JsonKind.String))
            {
                throw new BadJson("Expected clientID");
            }
            string text = isNumber && value.Text == "-0" ? "0" : value.Text;
            if (!IsClientID(text))
            {
                throw new BadJson("Expected a client ID");
            }
            return text;
        }

        private static EClientState State(Json body, string name)
        {
            Json value = body[name];
            EClientState state;
            if (value != null && value.Kind == JsonKind.String
                && ClientStates.TryParse(value.Text, out state))
            {
                return state;
            }
            long number = value == null || value.Kind != JsonKind.Number ? -1 : Integer(value);
            if (number < 0 || number > (long)EClientState.RUNNING)
            {
                throw new BadJson("Expected a state");
            }
            return (EClientState)number;
        }

        private static string Word(Json of, string name)
        {
            Json value = Optional(of, name, JsonKind.String);
            if (value == null)
            {
                return null;
            }
            int characters = 0;
            foreach (char letter in value.Text)
            {
                characters += char.IsLowSurrogate(letter) ? 0 : 1;
            }
            if (characters == 0 || characters > LongestWord)
            {
                throw new BadJson("Expected 1 to 64 characters");
            }
            return value.Text;
        }

        private static long Count(Json body, string name)
        {
            long number = Integer(Required(body, name, JsonKind.Number));
            if (number < 0)
            {
                throw new BadJson("Expected no negative number");
            }
            return number;
        }

        private static double Fuse(Json body, string name)
        {
            double seconds = Real(Required(body, name, JsonKind.Number));
            if (!(seconds > 0))
            {
                throw new BadJson("Expected more than 0");
            }
            return seconds;
        }

        private static bool IsInteger(string number)
        {
            return number.IndexOfAny(new[] { '.', 'e', 'E' }) < 0;
        }

        private static long Integer(Json number)
        {
            long integer;
            if (!IsInteger(number.Text) || !long.TryParse(
                number.Text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out integer))
            {
                throw new BadJson("Expected an integer");
            }
            return integer;
        }

        private static double Real(Json number)
        {
            double real;
            if (!double.TryParse(
                number.Text, NumberStyles.Float, CultureInfo.InvariantCulture, out real)
                || double.IsInfinity(real))
            {
                throw new BadJson("Expected a number that a double can hold");
            }
            return real;
        }
    }
}
