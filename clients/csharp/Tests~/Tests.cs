using System;
using System.Collections.Generic;

namespace MLF.Tests
{
    /// <summary>Runs all tests of what the client is made of: Tests.exe FOLDER, that of the
    /// contract's examples. Prints what fails, and how many passed.</summary>
    internal static class Tests
    {
        private static int Main(string[] arguments)
        {
            int passed = 0, failed = 0;
            foreach (KeyValuePair<string, Action> test in All(arguments[0]))
            {
                try
                {
                    test.Value();
                    passed++;
                }
                catch (Exception error)
                {
                    failed++;
                    Console.Error.WriteLine("FAILED " + test.Key + ": " + error.Message);
                }
            }
            Console.WriteLine(passed + " passed, " + failed + " failed");
            return failed == 0 && passed > 0 ? 0 : 1;
        }

        private static IEnumerable<KeyValuePair<string, Action>> All(string folder)
        {
            foreach (KeyValuePair<string, Action> test in SessionTests.All(folder))
            {
                yield return test;
            }
            foreach (KeyValuePair<string, Action> test in CodecTests.All())
            {
                yield return test;
            }
            foreach (KeyValuePair<string, Action> test in EventTests.All())
            {
                yield return test;
            }
            foreach (KeyValuePair<string, Action> test in ClientTests.All())
            {
                yield return test;
            }
        }
    }

    internal static class Check
    {
        public static void That(bool isSo, string what)
        {
            if (!isSo)
            {
                throw new Exception(what);
            }
        }

        public static void Same(string found, string wanted)
        {
            That(found == wanted, "got " + found + ", wanted " + wanted);
        }
    }
}
