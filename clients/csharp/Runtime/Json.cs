using System;
using System.Collections.Generic;
using System.Globalization;
using System.Text;

namespace MLF
{
    /// <summary>What JSON can be.</summary>
    internal enum JsonKind
    {
        Null,
        Boolean,
        Number,
        String,
        Array,
        Object,
    }

    /// <summary>A text that is no JSON, or not what was expected; the text says why.</summary>
    internal sealed class BadJson : Exception
    {
        public BadJson(string why)
            : base(why)
        {
        }
    }

    /// <summary>
    /// JSON that was read. A number stays the text that it was, as an incarnation is too long
    /// for a double. Of a name that is there twice, the last counts.
    /// </summary>
    internal sealed class Json
    {
        public readonly JsonKind Kind;

        /// <summary>What a string says, or how a number is written.</summary>
        public readonly string Text;

        private readonly Dictionary<string, Json> _members;

        public Json(JsonKind kind, string text = null, Dictionary<string, Json> members = null)
        {
            Kind = kind;
            Text = text;
            _members = members;
        }

        /// <summary>A member of an object; null if it isn't there.</summary>
        public Json this[string name]
        {
            get
            {
                if (Kind != JsonKind.Object)
                {
                    throw new BadJson("Expected an object");
                }
                Json value;
                return _members.TryGetValue(name, out value) ? value : null;
            }
        }
    }

    /// <summary>
    /// Reads JSON, strictly (RFC 8259), from UTF-8. Contents of arrays are checked and not kept,
    /// as no message of a server has any.
    /// </summary>
    internal sealed class JsonReader
    {
        /// <summary>How deep it may be nested.</summary>
        public const int MaxLevels = 100;

        private static readonly UTF8Encoding Utf8 = new UTF8Encoding(false, true);

        private readonly string _text;
        private int _at;
        private int _level;

        private JsonReader(string text)
        {
            _text = text;
        }

        /// <exception cref="BadJson">If it is anything else.</exception>
        public static Json Read(byte[] utf8)
        {
            string text;
            try
            {
                text = Utf8.GetString(utf8);
            }
            catch (ArgumentException)
            {
                throw new BadJson("It is not UTF-8");
            }
            return Read(text);
        }

        /// <exception cref="BadJson">If it is anything else.</exception>
        public static Json Read(string text)
        {
            var reader = new JsonReader(text);
            Json value = reader.Value();
            reader.Space();
            if (reader._at < text.Length)
            {
                throw reader.Malformed();
            }
            return value;
        }

        private Json Value()
        {
            Space();
            switch (Peek())
            {
                case '{':
                    return Object();
                case '[':
                    return Array();
                case '"':
                    return new Json(JsonKind.String, String());
                case 't':
                    return Word("true", JsonKind.Boolean);
                case 'f':
                    return Word("false", JsonKind.Boolean);
                case 'n':
                    return Word("null", JsonKind.Null);
                default:
                    return Number();
            }
        }

        private Json Object()
        {
            var members = new Dictionary<string, Json>(StringComparer.Ordinal);
            Enter();
            Space();
            if (Peek() != '}')
            {
                do
                {
                    Space();
                    if (Peek() != '"')
                    {
                        throw Malformed();
                    }
                    string name = String();
                    Space();
                    Expect(':');
                    members[name] = Value();
                }
                while (ComesMore());
            }
            Expect('}');
            _level--;
            return new Json(JsonKind.Object, null, members);
        }

        private Json Array()
        {
            Enter();
            Space();
            if (Peek() != ']')
            {
                do
                {
                    Value();
                }
                while (ComesMore());
            }
            Expect(']');
            _level--;
            return new Json(JsonKind.Array);
        }

        private void Enter()
        {
            _at++;
            _level++;
            if (_level > MaxLevels)
            {
                throw new BadJson("It is nested too deeply");
            }
        }

        private bool ComesMore()
        {
            Space();
            if (Peek() != ',')
            {
                return false;
            }
            _at++;
            return true;
        }

        private string String()
        {
            var content = new StringBuilder();
            _at++;
            while (true)
            {
                char next = Take();
                if (next == '"')
                {
                    break;
                }
                if (next < ' ')
                {
                    throw Malformed();
                }
                content.Append(next == '\\' ? Escaped() : next);
            }
            string text = content.ToString();
            CheckSurrogates(text);
            return text;
        }

        private char Escaped()
        {
            char next = Take();
            switch (next)
            {
                case '"':
                case '\\':
                case '/':
                    return next;
                case 'b':
                    return '\b';
                case 'f':
                    return '\f';
                case 'n':
                    return '\n';
                case 'r':
                    return '\r';
                case 't':
                    return '\t';
                case 'u':
                    return Unicode();
                default:
                    throw Malformed();
            }
        }

        private char Unicode()
        {
            int code = 0;
            for (int digit = 0; digit < 4; digit++)
            {
                char next = Take();
                int value = next >= '0' && next <= '9' ? next - '0'
                    : next >= 'a' && next <= 'f' ? next - 'a' + 10
                    : next >= 'A' && next <= 'F' ? next - 'A' + 10
                    : -1;
                if (value < 0)
                {
                    throw Malformed();
                }
                code = code * 16 + value;
            }
            return (char)code;
        }

        private void CheckSurrogates(string text)
        {
            for (int at = 0; at < text.Length; at++)
            {
                if (!char.IsSurrogate(text[at]))
                {
                    continue;
                }
                if (at + 1 == text.Length || !char.IsSurrogatePair(text[at], text[at + 1]))
                {
                    throw Malformed();
                }
                at++;
            }
        }

        private Json Number()
        {
            int begin = _at;
            if (Peek() == '-')
            {
                _at++;
            }
            if (Peek() == '0')
            {
                _at++;
            }
            else
            {
                Digits();
            }
            if (_at < _text.Length && _text[_at] == '.')
            {
                _at++;
                Digits();
            }
            if (_at < _text.Length && (_text[_at] == 'e' || _text[_at] == 'E'))
            {
                _at++;
                if (Peek() == '+' || Peek() == '-')
                {
                    _at++;
                }
                Digits();
            }
            return new Json(JsonKind.Number, _text.Substring(begin, _at - begin));
        }

        private void Digits()
        {
            int begin = _at;
            while (_at < _text.Length && _text[_at] >= '0' && _text[_at] <= '9')
            {
                _at++;
            }
            if (_at == begin)
            {
                throw Malformed();
            }
        }

        private Json Word(string word, JsonKind kind)
        {
            foreach (char letter in word)
            {
                Expect(letter);
            }
            return new Json(kind);
        }

        private void Space()
        {
            while (_at < _text.Length
                && (_text[_at] == ' ' || _text[_at] == '\n' || _text[_at] == '\r' || _text[_at] == '\t'))
            {
                _at++;
            }
        }

        private char Peek()
        {
            if (_at == _text.Length)
            {
                throw new BadJson("It ends too early");
            }
            return _text[_at];
        }

        private char Take()
        {
            char next = Peek();
            _at++;
            return next;
        }

        private void Expect(char expected)
        {
            if (Peek() != expected)
            {
                throw Malformed();
            }
            _at++;
        }

        private BadJson Malformed()
        {
            return new BadJson("It is malformed at character " + Printable.Number(_at));
        }
    }

    /// <summary>Writes one JSON object.</summary>
    internal sealed class JsonWriter
    {
        private readonly StringBuilder _text = new StringBuilder("{");

        public override string ToString()
        {
            return _text + "}";
        }

        public void String(string name, string value)
        {
            Name(name);
            Quoted(value);
        }

        public void Number(string name, long value)
        {
            Raw(name, Printable.Number(value));
        }

        /// <param name="value">Finite.</param>
        public void Number(string name, double value)
        {
            Raw(name, value.ToString("R", CultureInfo.InvariantCulture));
        }

        /// <param name="value">JSON.</param>
        public void Raw(string name, string value)
        {
            Name(name);
            _text.Append(value);
        }

        private void Name(string name)
        {
            if (_text.Length > 1)
            {
                _text.Append(',');
            }
            Quoted(name);
            _text.Append(':');
        }

        private void Quoted(string value)
        {
            _text.Append('"');
            foreach (char letter in value)
            {
                if (letter == '"' || letter == '\\')
                {
                    _text.Append('\\').Append(letter);
                }
                else if (letter < ' ')
                {
                    _text.Append("\\u").Append(((int)letter).ToString("x4", CultureInfo.InvariantCulture));
                }
                else
                {
                    _text.Append(letter);
                }
            }
            _text.Append('"');
        }
    }
}
