// Asks for the operators' token, where the service wants one. Where it is kept, the service
// module knows. Knows no client.

import { h } from "./dom.js";
import { feet, lead, openSheet, title } from "./sheets.js";
import { T } from "./texts.js";

let asking = false;

/** Asks once at a time, and begins again with what was given; `wrong` tells that one was refused. */
export function ask(app, wrong) {
  if (asking) return;
  asking = true;
  openSheet((close) => {
    const field = h("input", { class: "field", type: "password", id: "token", autocomplete: "off", required: true, "data-first": true });
    const onsubmit = (event) => {
      event.preventDefault();
      app.service.token = field.value.trim();
      asking = false;
      close();
      app.start();
    };
    return [h("form", { onsubmit },
      title(T.token.title), lead(T.token.text),
      h("label", { class: "sure" }, T.token.label, field),
      wrong && h("p", { class: "wrong", role: "alert" }, T.token.wrong),
      feet(h("button", { type: "submit", class: "btn primary" }, T.token.go)))];
  }, { name: "token", firm: true, onclose: () => asking && askAgain(app, wrong) });
}

// A browser lets Esc shut it when it is pressed twice.
function askAgain(app, wrong) {
  asking = false;
  ask(app, wrong);
}
