#!/usr/bin/env node
// A game client without a game, as `heartbeat-client` is one: prints each change of its state on a
// line, and says Goodbye on SIGINT or SIGTERM. Refusals and warnings go to standard error.
// Decides nothing itself.

import { readFileSync, statSync } from "node:fs";
import { parseArgs } from "node:util";
import { GameClient, baseURL, checkClientID } from "./heartbeat.js";
import { changeOf, complaintOf } from "./lines.mjs";

const HELP = `Usage: node cli.mjs --id ID --server http[s]://HOST:PORT [options]

  --id ID            The client's ID, always needed
  --server URL       Where the service serves HTTP, always needed
  --token-file FILE  File of the token that heartbeats carry [none]
  --help             Display this help and exit
  --version          Display the version and exit

A game client without a game: sends heartbeats, prints each change of its state on a line, and
says Goodbye when it is stopped by SIGINT or SIGTERM. Node trusts the certificates in the file
that the environment's NODE_EXTRA_CA_CERTS names, besides those that it has.
`;

const OPTIONS = {
  id: { type: "string", default: "" },
  server: { type: "string", default: "" },
  "token-file": { type: "string" },
  help: { type: "boolean" },
  version: { type: "boolean" },
};

/** What is wrong is said first, in a sentence, and then how to get help. */
function refuse(sentence) {
  console.error(`${sentence}\nHelp: node cli.mjs --help`);
  process.exit(1);
}

function checked(option, check, value) {
  try {
    return check(value);
  } catch (error) {
    return refuse(`--${option}: ${error.message}`);
  }
}

function checkServer(server) {
  try {
    return baseURL(server);
  } catch {
    throw new TypeError(`expected http[s]://HOST:PORT, got '${server}'`);
  }
}

function readToken(path) {
  if (!statSync(path).isFile()) throw new Error(`${path}: not a regular file`);
  const token = readFileSync(path, "utf8").trim();
  if (!/^[!-~]+$/.test(token)) throw new Error(`${path}: expected one token, without spaces, in it`);
  return token;
}

function readOptions() {
  let given;
  try {
    given = parseArgs({ options: OPTIONS }).values;
  } catch (error) {
    refuse(error.message);
  }
  if (given.help) say(HELP.trimEnd(), 0);
  if (given.version) say(`heartbeat-service ${JSON.parse(readFileSync(new URL("package.json", import.meta.url))).version}`, 0);
  const path = given["token-file"];
  return {
    clientID: checked("id", checkClientID, given.id),
    server: checked("server", checkServer, given.server),
    token: path === undefined ? undefined : checked("token-file", readToken, path),
  };
}

function say(text, status = undefined) {
  console.log(text);
  if (status !== undefined) process.exit(status);
}

function run(options) {
  const client = new GameClient({ ...options, onEvent: tell });
  let isEnding = false;

  async function end(status) {
    if (isEnding) return;
    isEnding = true;
    await client.stop();
    process.exit(status);
  }

  function tell(event) {
    const change = changeOf(options.clientID, event);
    if (change !== null) console.log(change);
    else console.error(complaintOf(options.clientID, event));
    if (event.type === "Superseded") end(1);
  }

  process.on("SIGINT", () => end(0));
  process.on("SIGTERM", () => end(0));
  process.stdout.on("error", () => end(1)); // nobody reads: as a signal, with a Goodbye
  process.stderr.on("error", () => {}); // what nobody hears is lost
  client.start();
}

run(readOptions());
