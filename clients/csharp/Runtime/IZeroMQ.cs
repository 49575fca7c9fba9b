using System;

namespace MLF
{
    /// <summary>
    /// A DEALER and a SUB socket, and how they are. <see cref="Libzmq"/> and, with MLF_NETMQ
    /// defined, NetMQTransport are two. All but <see cref="Wake"/> is called on the client's own
    /// thread. After <see cref="Close"/> it can be opened again.
    /// </summary>
    public interface IZeroMQ
    {
        /// <summary>Connect both, in place of those that are open. Both are tcp://HOST:PORT.
        /// </summary>
        /// <param name="topic">What to subscribe to.</param>
        /// <exception cref="ZeroMQException">If they can't be; none is open then.</exception>
        void Open(string requestEndpoint, string stateChangeEndpoint, string topic);

        /// <summary>Send an empty frame and this one. What can't be sent now, and has no room in
        /// the queue, is dropped.</summary>
        void Send(byte[] content);

        /// <summary>Wait until something has come in, or <see cref="Wake"/> is called; it may
        /// return sooner.</summary>
        void Wait(int milliseconds);

        /// <summary>End a <see cref="Wait"/>, or the next one. Called on any thread.</summary>
        void Wake();

        /// <summary>The last frame of the next message; null if none has come in. Doesn't wait.
        /// </summary>
        byte[] Receive();

        /// <summary>Whether a connection was made or lost since this was asked last.</summary>
        /// <param name="trouble">Why one of them isn't there, for people; null if both have shaken
        /// hands.</param>
        bool HasChanged(out string trouble);

        /// <summary>Close everything at once; what wasn't sent is dropped.</summary>
        void Close();
    }

    /// <summary>Sockets that can't be opened; the text says why.</summary>
    public sealed class ZeroMQException : Exception
    {
        public ZeroMQException(string why)
            : base(why)
        {
        }
    }
}
