using MLF;
using UnityEngine;

/// <summary>Beats while its object lives, shows the state, and says when it is calibrated.
/// </summary>
public sealed class HeartbeatSample : MonoBehaviour
{
    public string server = "http://192.168.1.10:6969";
    public string clientID = "headset-1";

    private MLFGameClient _client;

    /// <summary>Call it when the headset knows where it is; the server decides.</summary>
    public void Calibrated()
    {
        _client.Report(EClientState.CALIBRATED);
    }

    private void OnEnable()
    {
        // Without any ZeroMQ; with the native libzmq: new Libzmq() as third argument.
        _client = new MLFGameClient(new MLFHttpParams(server), clientID);
        _client.OnEvent += Hear;
        _client.Start();
    }

    private void Update()
    {
        _client.Update();
    }

    private void OnDisable()
    {
        _client.Stop();  // returns at once: its thread says Goodbye and ends
    }

    private void Hear(MLFEvent what)
    {
        var changed = what as StateChanged;
        if (changed != null && changed.State == EClientState.RUNNING)
        {
            Debug.Log("The show runs");
        }
        else
        {
            Debug.Log(what);
        }
    }
}
