using System;
using System.Globalization;
using System.IO;
using System.Runtime.InteropServices;
using System.Threading;

namespace MLF
{
    /// <summary>
    /// A game client without a game (contract, section 6): prints each change of its state on a
    /// line, and says Goodbye on SIGINT or SIGTERM. Refusals and warnings go to standard error.
    /// </summary>
    internal static class Program
    {
        private const int WrongUsage = 1;
        private const int Beat = 20;  // milliseconds between two looks for events

        private const string Help =
            "Usage: MLFGameClient.exe --id ID --server http[s]://HOST:PORT [options]\n"
            + "A game client without a game.\n"
            + "      --id ID            the client's ID, always needed\n"
            + "      --server URL       where the service serves HTTP, always needed\n"
            + "      --transport NAME   what to follow the state by: zeromq or events [zeromq]\n"
            + "      --token-file FILE  file of the token that requests carry [none]\n"
            + "      --help             display this help and exit";

        private static int Main(string[] arguments)
        {
            string id = null, server = null, transport = "zeromq", tokenFile = null;
            for (int at = 0; at < arguments.Length; at += 2)
            {
                string name = arguments[at];
                if (name == "--help")
                {
                    Console.Out.WriteLine(Help);
                    return 0;
                }
                if (at + 1 == arguments.Length)
                {
                    return Complain(name + ": expected a value, or there is no such option");
                }
                string value = arguments[at + 1];
                switch (name)
                {
                    case "--id": id = value; break;
                    case "--server": server = value; break;
                    case "--transport": transport = value; break;
                    case "--token-file": tokenFile = value; break;
                    default: return Complain(name + ": there is no such option");
                }
            }
            if (transport != "zeromq" && transport != "events")
            {
                return Complain("--transport: expected zeromq or events, got '" + transport + "'");
            }
            string token = null;
            try
            {
                token = tokenFile == null ? null : File.ReadAllText(tokenFile).Trim();
            }
            catch (Exception error) when (error is IOException || error is UnauthorizedAccessException)
            {
                return Complain("--token-file: " + error.Message);
            }
            MLFGameClient client;
            try
            {
                var http = new MLFHttpParams(server ?? "", token);
                client = new MLFGameClient(
                    http, id ?? "", transport == "zeromq" ? new Libzmq() : null);
            }
            catch (ArgumentException error)
            {
                string option = error.ParamName == "clientID" ? "--id: "
                    : error.ParamName == "token" ? "--token-file: " : "--server: ";
                return Complain(option + error.Message.Split('\n')[0]);
            }
            return Follow(client, id);
        }

        private static int Complain(string what)
        {
            Console.Error.WriteLine(what + "\nHelp: MLFGameClient.exe --help");
            return WrongUsage;
        }

        private static int Follow(MLFGameClient client, string id)
        {
            var signals = new Signals();
            int status = 0;
            bool nobodyReads = false;
            client.OnEvent += what =>
            {
                if (what is StateChanged)
                {
                    nobodyReads |= !TryPrint(id, what);
                }
                else
                {
                    Console.Error.WriteLine(id + ": " + what);
                    status = what is Superseded || what is Failed ? 1 : status;
                }
            };
            client.Start();
            bool stops = false;
            while (!client.HasEnded)
            {
                bool stopped = signals.Wait(Beat);
                client.Update();
                if ((stopped || nobodyReads) && !stops)
                {
                    stops = true;
                    client.Stop();
                }
            }
            client.Update();
            return nobodyReads ? 1 : status;
        }

        private static bool TryPrint(string id, MLFEvent what)
        {
            string now = DateTime.Now.ToString(
                "yyyy-MM-dd HH:mm:ss.fff", CultureInfo.InvariantCulture);
            try
            {
                Console.Out.WriteLine(now + " " + id + " " + what);
                Console.Out.Flush();
                return true;
            }
            catch (IOException)
            {
                return false;
            }
        }

        /// <summary>SIGINT and SIGTERM, by what mono itself catches them with; elsewhere
        /// Ctrl-C.</summary>
        private sealed class Signals
        {
            private const int Interrupt = 2;
            private const int Terminate = 15;

            // Where the helper counts: an int behind the signal's number. Its own way to wait
            // misses a signal that comes before the first wait.
            private const int Count = 4;

            private readonly IntPtr[] _caught = new IntPtr[0];
            private bool _cancelled;

            public Signals()
            {
                try
                {
                    _caught = new[] { Install(Interrupt), Install(Terminate) };
                }
                catch (DllNotFoundException)
                {  // not mono on Unix
                    Console.CancelKeyPress += (sender, pressed) =>
                    {
                        pressed.Cancel = true;
                        _cancelled = true;
                    };
                }
            }

            /// <summary>Wait; whether one has come by then.</summary>
            public bool Wait(int milliseconds)
            {
                Thread.Sleep(milliseconds);
                bool cameOne = _cancelled;
                foreach (IntPtr signal in _caught)
                {
                    cameOne |= signal != IntPtr.Zero && Marshal.ReadInt32(signal, Count) > 0;
                }
                return cameOne;
            }

            [DllImport("MonoPosixHelper", EntryPoint = "Mono_Unix_UnixSignal_install",
                CallingConvention = CallingConvention.Cdecl, SetLastError = true)]
            private static extern IntPtr Install(int signal);
        }
    }
}
