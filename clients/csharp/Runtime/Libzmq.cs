using System;
using System.Runtime.InteropServices;
using System.Text;

namespace MLF
{
    /// <summary>
    /// ZeroMQ by the native libzmq (4.2 or newer). Nothing here is static: each client has a
    /// context of its own, which ends with it.
    /// </summary>
    public sealed class Libzmq : IZeroMQ
    {
        // As many as the Python client has: what a server says of one client is little, and of
        // what is sent, that which matters is asked again.
        private const int MaxUnread = 100;
        private const int MaxUnsent = 10;

        private readonly object _bellLock = new object();
        private readonly byte[] _frame = new byte[Codec.MaxMessage];
        private IntPtr _context;
        private IntPtr _bell;  // whoever wakes writes here
        private IntPtr _heard;  // and here it is heard
        private IntPtr _polled;  // what zmq_poll reads
        private Link _requests;
        private Link _subscription;
        private long _links;
        private bool _hasChanged;

        /// <inheritdoc/>
        public void Open(string requestEndpoint, string stateChangeEndpoint, string topic)
        {
            try
            {
                Begin();
                CloseLinks();
                _hasChanged = true;
                byte[] subscribed = Encoding.ASCII.GetBytes(topic);
                _subscription = new Link(_context, Native.Sub, stateChangeEndpoint, NewName());
                Native.Check(Native.zmq_setsockopt(
                    _subscription.Socket, Native.Subscribe, subscribed, (UIntPtr)subscribed.Length));
                _requests = new Link(_context, Native.Dealer, requestEndpoint, NewName());
                _subscription.Connect();
                _requests.Connect();
            }
            catch (ZeroMQException)
            {
                CloseLinks();
                throw;
            }
            catch (DllNotFoundException)
            {
                throw new ZeroMQException("there is no libzmq on this machine");
            }
            catch (EntryPointNotFoundException)
            {
                throw new ZeroMQException("this libzmq is too old");
            }
        }

        /// <inheritdoc/>
        public void Send(byte[] content)
        {
            if (_requests != null
                && Native.zmq_send(_requests.Socket, content, UIntPtr.Zero, Native.MoreNoWait) >= 0)
            {
                Native.zmq_send(
                    _requests.Socket, content, (UIntPtr)content.Length, Native.NoWait);
            }
        }

        /// <inheritdoc/>
        public void Wait(int milliseconds)
        {
            int count = 0;
            Poll(count++, _heard);
            foreach (Link link in new[] { _requests, _subscription })
            {
                if (link != null)
                {
                    Poll(count++, link.Socket);
                    Poll(count++, link.Monitor);
                }
            }
            // The runtime's collector interrupts it: then it is over sooner, and who called
            // keeps the time.
            Native.zmq_poll(_polled, count, new IntPtr(milliseconds));
            while (Native.zmq_recv(_heard, _frame, (UIntPtr)_frame.Length, Native.NoWait) >= 0)
            {
            }
            Listen(_requests);
            Listen(_subscription);
        }

        /// <inheritdoc/>
        public void Wake()
        {
            lock (_bellLock)
            {
                if (_bell != IntPtr.Zero)
                {
                    Native.zmq_send(_bell, new byte[0], UIntPtr.Zero, Native.NoWait);
                }
            }
        }

        /// <inheritdoc/>
        public byte[] Receive()
        {
            return Receive(_requests) ?? Receive(_subscription);
        }

        /// <inheritdoc/>
        public bool HasChanged(out string trouble)
        {
            trouble = null;
            foreach (Link link in new[] { _subscription, _requests })
            {
                if (link != null && !link.IsConnected && trouble == null)
                {
                    trouble = link.Trouble;
                }
            }
            bool hasChanged = _hasChanged && _requests != null;
            _hasChanged = false;
            return hasChanged;
        }

        /// <inheritdoc/>
        public void Close()
        {
            CloseLinks();
            if (_context == IntPtr.Zero)
            {
                return;
            }
            lock (_bellLock)
            {
                Native.zmq_close(_bell);
                _bell = IntPtr.Zero;
            }
            Native.zmq_close(_heard);
            _heard = IntPtr.Zero;
            // No socket is left, and none lingers: this waits for nobody.
            while (Native.zmq_ctx_term(_context) < 0 && Native.Errno() == Native.Interrupted)
            {
            }
            Marshal.FreeHGlobal(_polled);
            _context = IntPtr.Zero;
        }

        private void Begin()
        {
            if (_context != IntPtr.Zero)
            {
                return;
            }
            _context = Native.zmq_ctx_new();
            _polled = Marshal.AllocHGlobal(5 * Native.PollItem);
            try
            {
                _heard = Native.NewSocket(_context, Native.Pair);
                Native.SetLinger(_heard);
                Native.Check(Native.zmq_bind(_heard, "inproc://bell"));
                lock (_bellLock)
                {
                    _bell = Native.NewSocket(_context, Native.Pair);
                    Native.SetLinger(_bell);
                    Native.Check(Native.zmq_connect(_bell, "inproc://bell"));
                }
            }
            catch (ZeroMQException)
            {
                Close();  // half a bell is none: the next try begins anew
                throw;
            }
        }

        private void CloseLinks()
        {
            if (_requests != null)
            {
                _requests.Close();
            }
            if (_subscription != null)
            {
                _subscription.Close();
            }
            _requests = _subscription = null;
        }

        private string NewName()
        {
            _links++;
            return "inproc://monitor-" + Printable.Number(_links);
        }

        // A zmq_pollitem_t: void *socket; SOCKET or int fd; short events; short revents.
        private void Poll(int index, IntPtr socket)
        {
            int at = index * Native.PollItem;
            Marshal.WriteIntPtr(_polled, at, socket);
            Marshal.WriteInt16(_polled, at + Native.PollEvents, Native.PollIn);
            Marshal.WriteInt16(_polled, at + Native.PollEvents + 2, 0);
        }

        private void Listen(Link link)
        {
            if (link != null)
            {
                _hasChanged |= link.Listen(_frame);
            }
        }

        private byte[] Receive(Link link)
        {
            if (link == null)
            {
                return null;
            }
            int length = Native.zmq_recv(link.Socket, _frame, (UIntPtr)_frame.Length, Native.NoWait);
            if (length < 0)
            {
                return null;
            }
            while (Native.ComesMore(link.Socket))  // the frames of a message come at once
            {
                length = Native.zmq_recv(link.Socket, _frame, (UIntPtr)_frame.Length, Native.NoWait);
            }
            var content = new byte[Math.Max(0, Math.Min(length, _frame.Length))];
            Buffer.BlockCopy(_frame, 0, content, 0, content.Length);
            return content;
        }

        /// <summary>
        /// A socket, and whether it is connected; if not, why. libzmq connects by itself, again
        /// and again, and says nothing when it can't. Its monitor tells of each try, and of each
        /// handshake: what the last one came to is kept here.
        /// </summary>
        private sealed class Link
        {
            private const string Unreachable =
                " can't be reached: is the name right that the server advertises, "
                + "does a firewall stand between?";

            private const string NoHandshake =
                " does not shake hands: does it want CURVE keys, is it ZeroMQ?";

            private const string OtherMechanism =
                " wants CURVE keys, and this client has none";

            public readonly IntPtr Socket;
            public readonly IntPtr Monitor;

            private const int HandshakeMilliseconds = 5000;
            private const int SilenceSeconds = 15;

            private readonly string _address;
            private string _why = Unreachable;

            /// <exception cref="ZeroMQException">If it can't be; nothing is open then.
            /// </exception>
            public Link(IntPtr context, int type, string address, string monitorName)
            {
                _address = address;
                Socket = Native.NewSocket(context, type);
                Native.SetLinger(Socket);
                try
                {
                    Monitor = Native.NewSocket(context, Native.Pair);
                }
                catch (ZeroMQException)
                {
                    Native.zmq_close(Socket);  // else the context would never end
                    throw;
                }
                Native.SetLinger(Monitor);
                long longest = Codec.MaxMessage;
                Native.zmq_setsockopt(Socket, Native.MaxMessageSize, ref longest, (UIntPtr)8);
                // Only where it is asked for: else 127.0.0.1 is told as [::ffff:127.0.0.1].
                Native.Set(Socket, Native.IPv6, address.IndexOf('[') >= 0 ? 1 : 0);
                Native.Set(Socket, Native.ReceiveLimit, MaxUnread);
                Native.Set(Socket, Native.SendLimit, MaxUnsent);
                Native.Set(Socket, Native.HandshakeInterval, HandshakeMilliseconds);
                Native.Set(Socket, Native.LongestReconnectInterval, 5000);
                // Not ZMTP's pings: contract, section 7, "ZeroMQ".
                Native.Set(Socket, Native.TcpKeepAlive, 1);
                Native.Set(Socket, Native.TcpKeepAliveIdle, SilenceSeconds / 3);
                Native.Set(Socket, Native.TcpKeepAliveInterval, SilenceSeconds / 3);
                Native.Set(Socket, Native.TcpKeepAliveCount, 2);
                try
                {
                    Native.Check(Native.zmq_socket_monitor(Socket, monitorName, Native.Watched));
                    Native.Check(Native.zmq_connect(Monitor, monitorName));
                }
                catch (ZeroMQException)
                {
                    Close();
                    throw;
                }
            }

            /// <summary>Whether the last handshake succeeded, and that holds.</summary>
            public bool IsConnected { get; private set; }

            /// <summary>What goes wrong; of no use while it is connected.</summary>
            public string Trouble
            {
                get { return _address + _why; }
            }

            public void Connect()
            {
                Native.Check(Native.zmq_connect(Socket, _address));
            }

            /// <summary>Read what the monitor tells; whether it told something.</summary>
            public bool Listen(byte[] frame)
            {
                bool hasTold = false;
                while (Native.zmq_recv(Monitor, frame, (UIntPtr)frame.Length, Native.NoWait) >= 6)
                {
                    Heard(BitConverter.ToUInt16(frame, 0), BitConverter.ToInt32(frame, 2));
                    hasTold = true;
                    while (Native.ComesMore(Monitor))  // the address
                    {
                        Native.zmq_recv(Monitor, frame, (UIntPtr)frame.Length, Native.NoWait);
                    }
                }
                return hasTold;
            }

            public void Close()
            {
                // libzmq's thread may wait for room in the monitor, with the lock that is needed
                // next. And with nobody left to read, it would wait for ever.
                Listen(new byte[1024]);
                Native.zmq_socket_monitor(Socket, null, 0);
                Native.zmq_close(Monitor);
                Native.zmq_close(Socket);
            }

            private void Heard(int what, int value)
            {
                if (what == Native.HandshakeSucceeded)
                {
                    IsConnected = true;
                }
                else if (what == Native.Connected)
                {
                    _why = NoHandshake;  // as long as that is all
                }
                else if (what == Native.HandshakeFailedProtocol)
                {
                    if (value == Native.MechanismMismatch)
                    {
                        _why = OtherMechanism;
                    }
                }
                else if (IsConnected || what == Native.Closed)
                {
                    IsConnected = false;
                    _why = Unreachable;
                }
            }
        }

        /// <summary>libzmq's own names, and the numbers of zmq.h.</summary>
        private static class Native
        {
            public const int Pair = 0;
            public const int Sub = 2;
            public const int Dealer = 5;

            public const int Subscribe = 6;
            public const int ReceiveMore = 13;
            public const int Linger = 17;
            public const int LongestReconnectInterval = 21;
            public const int MaxMessageSize = 22;
            public const int SendLimit = 23;
            public const int ReceiveLimit = 24;
            public const int TcpKeepAlive = 34;
            public const int TcpKeepAliveCount = 35;
            public const int TcpKeepAliveIdle = 36;
            public const int TcpKeepAliveInterval = 37;
            public const int IPv6 = 42;
            public const int HandshakeInterval = 66;

            public const int NoWait = 1;
            public const int MoreNoWait = 3;
            public const short PollIn = 1;
            public const int Interrupted = 4;  // EINTR

            public const int Connected = 0x0001;
            public const int Closed = 0x0080;
            public const int Disconnected = 0x0200;
            public const int HandshakeSucceeded = 0x1000;
            public const int HandshakeFailedProtocol = 0x2000;
            public const int Watched =
                Connected | Closed | Disconnected | HandshakeSucceeded | HandshakeFailedProtocol;
            public const int MechanismMismatch = 0x11000001;

            private const string Library = "libzmq";

            public static bool IsWindows
            {
                get { return Environment.OSVersion.Platform == PlatformID.Win32NT; }
            }

            /// <summary>Where the events of a zmq_pollitem_t begin: behind a pointer and a
            /// descriptor, which is as long as a pointer on Windows.</summary>
            public static int PollEvents
            {
                get { return IntPtr.Size + (IsWindows ? IntPtr.Size : 4); }
            }

            /// <summary>The length of a zmq_pollitem_t.</summary>
            public static int PollItem
            {
                get
                {
                    int length = PollEvents + 4;
                    return (length + IntPtr.Size - 1) / IntPtr.Size * IntPtr.Size;
                }
            }

            /// <summary>Of the call before.</summary>
            public static int Errno()
            {
                return IsWindows ? zmq_errno() : Marshal.GetLastWin32Error();
            }

            public static void Check(int result)
            {
                if (result < 0)
                {
                    int errno = Errno();
                    throw new ZeroMQException(Marshal.PtrToStringAnsi(zmq_strerror(errno)));
                }
            }

            public static IntPtr NewSocket(IntPtr context, int type)
            {
                IntPtr socket = zmq_socket(context, type);
                Check(socket == IntPtr.Zero ? -1 : 0);
                return socket;
            }

            public static void Set(IntPtr socket, int option, int value)
            {
                // An option that an older libzmq doesn't know does without.
                zmq_setsockopt(socket, option, ref value, (UIntPtr)4);
            }

            public static void SetLinger(IntPtr socket)
            {
                Set(socket, Linger, 0);
            }

            public static bool ComesMore(IntPtr socket)
            {
                int more = 0;
                var length = (UIntPtr)4;
                return zmq_getsockopt(socket, ReceiveMore, ref more, ref length) == 0 && more != 0;
            }

            [DllImport(Library, SetLastError = true, CallingConvention = CallingConvention.Cdecl)]
            public static extern IntPtr zmq_ctx_new();

            [DllImport(Library, SetLastError = true, CallingConvention = CallingConvention.Cdecl)]
            public static extern int zmq_ctx_term(IntPtr context);

            [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
            public static extern int zmq_errno();

            [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
            public static extern IntPtr zmq_strerror(int errno);

            [DllImport(Library, SetLastError = true, CallingConvention = CallingConvention.Cdecl)]
            public static extern IntPtr zmq_socket(IntPtr context, int type);

            [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
            public static extern int zmq_close(IntPtr socket);

            [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
            public static extern int zmq_setsockopt(
                IntPtr socket, int option, ref int value, UIntPtr length);

            [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
            public static extern int zmq_setsockopt(
                IntPtr socket, int option, ref long value, UIntPtr length);

            [DllImport(Library, SetLastError = true, CallingConvention = CallingConvention.Cdecl)]
            public static extern int zmq_setsockopt(
                IntPtr socket, int option, byte[] value, UIntPtr length);

            [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
            public static extern int zmq_getsockopt(
                IntPtr socket, int option, ref int value, ref UIntPtr length);

            [DllImport(Library, SetLastError = true, CallingConvention = CallingConvention.Cdecl,
                CharSet = CharSet.Ansi)]
            public static extern int zmq_bind(IntPtr socket, string address);

            [DllImport(Library, SetLastError = true, CallingConvention = CallingConvention.Cdecl,
                CharSet = CharSet.Ansi)]
            public static extern int zmq_connect(IntPtr socket, string address);

            [DllImport(Library, SetLastError = true, CallingConvention = CallingConvention.Cdecl,
                CharSet = CharSet.Ansi)]
            public static extern int zmq_socket_monitor(IntPtr socket, string address, int events);

            [DllImport(Library, SetLastError = true, CallingConvention = CallingConvention.Cdecl)]
            public static extern int zmq_send(
                IntPtr socket, byte[] content, UIntPtr length, int flags);

            [DllImport(Library, SetLastError = true, CallingConvention = CallingConvention.Cdecl)]
            public static extern int zmq_recv(
                IntPtr socket, byte[] content, UIntPtr length, int flags);

            [DllImport(Library, SetLastError = true, CallingConvention = CallingConvention.Cdecl)]
            public static extern int zmq_poll(IntPtr items, int count, IntPtr milliseconds);
        }
    }
}
