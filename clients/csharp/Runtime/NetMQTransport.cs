#if MLF_NETMQ
using System;
using NetMQ;
using NetMQ.Sockets;

namespace MLF
{
    /// <summary>
    /// ZeroMQ by NetMQ 4.0.1, for who has it and no native libzmq. Define MLF_NETMQ and reference
    /// NetMQ. It has no monitor here, so it is taken for connected: that publications don't come
    /// shows with the next beat's reply, and the sockets are opened anew then.
    ///
    /// NetMQ's threads are shared by all of a process and outlive this. Before an editor unloads
    /// its code, call NetMQConfig.Cleanup(false), which doesn't wait.
    /// </summary>
    public sealed class NetMQTransport : IZeroMQ
    {
        private readonly object _bellLock = new object();
        private readonly NetMQSelector _selector = new NetMQSelector();
        private readonly string _name = "inproc://bell-" + Guid.NewGuid().ToString("N");
        private PairSocket _bell;
        private PairSocket _heard;
        private DealerSocket _requests;
        private SubscriberSocket _subscription;
        private bool _hasChanged;

        /// <inheritdoc/>
        public void Open(string requestEndpoint, string stateChangeEndpoint, string topic)
        {
            CloseSockets();
            try
            {
                Begin();
                _subscription = new SubscriberSocket();
                _requests = new DealerSocket();
                foreach (NetMQSocket socket in new NetMQSocket[] { _subscription, _requests })
                {
                    socket.Options.Linger = TimeSpan.Zero;
                    socket.Options.MaxMsgSize = Codec.MaxMessage;
                }
                _subscription.Subscribe(topic);
                _subscription.Connect(stateChangeEndpoint);
                _requests.Connect(requestEndpoint);
                _hasChanged = true;
            }
            catch (Exception error)  // a name that isn't found, say, is no NetMQException
            {
                CloseSockets();
                throw new ZeroMQException(error.Message);
            }
        }

        /// <inheritdoc/>
        public void Send(byte[] content)
        {
            if (_requests != null
                && _requests.TrySendFrame(TimeSpan.Zero, new byte[0], 0, true))
            {
                _requests.TrySendFrame(TimeSpan.Zero, content, content.Length, false);
            }
        }

        /// <inheritdoc/>
        public void Wait(int milliseconds)
        {
            var items = new[]
            {
                new NetMQSelector.Item(_heard, PollEvents.PollIn),
                new NetMQSelector.Item(_requests, PollEvents.PollIn),
                new NetMQSelector.Item(_subscription, PollEvents.PollIn),
            };
            _selector.Select(items, items.Length, milliseconds);
            byte[] bell;
            while (_heard.TryReceiveFrameBytes(TimeSpan.Zero, out bell))
            {
            }
        }

        /// <inheritdoc/>
        public void Wake()
        {
            lock (_bellLock)
            {
                if (_bell != null)
                {
                    _bell.TrySendFrame(TimeSpan.Zero, new byte[0], 0, false);
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
            bool hasChanged = _hasChanged;
            _hasChanged = false;
            return hasChanged;
        }

        /// <inheritdoc/>
        public void Close()
        {
            CloseSockets();
            lock (_bellLock)
            {
                if (_bell != null)
                {
                    _bell.Dispose();
                    _heard.Dispose();
                    _bell = _heard = null;
                }
            }
        }

        private static byte[] Receive(NetMQSocket socket)
        {
            byte[] content;
            bool comesMore;
            if (socket == null
                || !socket.TryReceiveFrameBytes(TimeSpan.Zero, out content, out comesMore))
            {
                return null;
            }
            while (comesMore)  // the frames of a message come at once
            {
                content = socket.ReceiveFrameBytes(out comesMore);
            }
            return content;
        }

        private void Begin()
        {
            lock (_bellLock)
            {
                if (_bell == null)
                {
                    _heard = new PairSocket();
                    _heard.Bind(_name);
                    _bell = new PairSocket();
                    _bell.Connect(_name);
                }
            }
        }

        private void CloseSockets()
        {
            if (_requests != null)
            {
                _requests.Dispose();
            }
            if (_subscription != null)
            {
                _subscription.Dispose();
            }
            _requests = null;
            _subscription = null;
        }
    }
}
#endif
