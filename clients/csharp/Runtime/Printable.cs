using System.Globalization;
using System.Text;

namespace MLF
{
    /// <summary>A server's words for a terminal or a log: one line, not too long.</summary>
    internal static class Printable
    {
        /// <summary>The most of a server's words that anyone is shown, in characters.</summary>
        public const int LongestText = 300;

        public static string Number(long number)
        {
            return number.ToString(CultureInfo.InvariantCulture);
        }

        /// <summary>What isn't visible is escaped: control characters, line ends, marks that
        /// turn the direction of a text.</summary>
        public static string Text(string text)
        {
            var shown = new StringBuilder();
            int characters = 0;
            int at = 0;
            while (at < text.Length && characters < LongestText)
            {
                bool isPair = at + 1 < text.Length
                    && char.IsSurrogatePair(text[at], text[at + 1]);
                int length = isPair ? 2 : 1;
                if (IsVisible(text, at))
                {
                    shown.Append(text, at, length);
                }
                else
                {
                    Escape(shown, isPair ? char.ConvertToUtf32(text, at) : text[at]);
                }
                at += length;
                characters++;
            }
            return at < text.Length ? shown.Append(" …").ToString() : shown.ToString();
        }

        private static bool IsVisible(string text, int at)
        {
            switch (CharUnicodeInfo.GetUnicodeCategory(text, at))
            {
                case UnicodeCategory.SpaceSeparator:
                    return text[at] == ' ';
                case UnicodeCategory.Control:
                case UnicodeCategory.Format:
                case UnicodeCategory.LineSeparator:
                case UnicodeCategory.OtherNotAssigned:
                case UnicodeCategory.ParagraphSeparator:
                case UnicodeCategory.PrivateUse:
                case UnicodeCategory.Surrogate:
                    return false;
                default:
                    return true;
            }
        }

        private static void Escape(StringBuilder shown, int character)
        {
            switch (character)
            {
                case '\n':
                    shown.Append("\\n");
                    break;
                case '\r':
                    shown.Append("\\r");
                    break;
                case '\t':
                    shown.Append("\\t");
                    break;
                default:
                    string format = character <= 0xFF ? "x2" : character <= 0xFFFF ? "x4" : "x8";
                    shown.Append('\\').Append(character <= 0xFF ? 'x' : character <= 0xFFFF ? 'u' : 'U');
                    shown.Append(character.ToString(format, CultureInfo.InvariantCulture));
                    break;
            }
        }
    }
}
