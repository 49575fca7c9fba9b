// What stands there while nobody has ever come: how to send a first heartbeat. Knows no
// client.

import { button, h } from "./dom.js";
import { T } from "./texts.js";

const command = () => `curl ${location.origin}/heartbeat -d '{
  "sdkVersion": 0.1, "timestamp": "2026-01-01 00:00:00.000000",
  "messageType": "HEARTBEAT",
  "body": {"clientID": "headset-01", "clientState": "DISCONNECTED",
           "labels": {"room": "A"}}}'`;

export function mount(app, element) {
  const copy = button("primary", async () => {
    await navigator.clipboard?.writeText(command());
    copy.textContent = T.hello.copied;
    app.say(T.hello.copied);
  }, T.hello.copy);
  element.append(
    h("h2", {}, T.hello.title), h("p", {}, T.hello.text), h("pre", {}, command()),
    h("div", { class: "row" }, copy, h("span", { class: "mid" }, T.hello.after)),
  );
  return { draw() {}, shown: () => [], move: () => null, group: () => [] };
}
