/** A game client of heartbeat-service, for browsers and Node 20. All times are in seconds. */

export type State = "DISCONNECTED" | "UNCALIBRATED" | "CALIBRATED" | "RUNNING";

/** The states, in the order of their numbers on the wire. */
export const STATES: readonly State[];

/** The longest answer or event that is read, in bytes. */
export const LONGEST_MESSAGE: number;

/** The client is in this state now. (incarnation, sequence) never stands for two states. */
export interface StateChanged {
  readonly type: "StateChanged";
  readonly state: State;
  readonly incarnation: number;
  readonly sequence: number;
}

/** The server said no to something, or will: `code` is the contract's. Beats that are refused with
 * one code in a row are told once. */
export interface Refused {
  readonly type: "Refused";
  readonly code: string;
  readonly detail: string;
}

/** No beat gets through any more; it is tried again for ever. */
export interface ServerLost {
  readonly type: "ServerLost";
  readonly detail: string;
}

/** Beats get through, the event stream doesn't, and that lasts: the state follows once a beat. */
export interface EventsLost {
  readonly type: "EventsLost";
  readonly detail: string;
}

/** After EventsLost: events get through again. */
export interface EventsBack {
  readonly type: "EventsBack";
}

/** Another process is this client now: it is silent from here on, for good. */
export interface Superseded {
  readonly type: "Superseded";
  readonly detail: string;
}

export type GameEvent = StateChanged | Refused | ServerLost | EventsLost | EventsBack | Superseded;

export interface GameClientOptions {
  /** The service's base URL, http[s]://HOST:PORT. */
  server: string;
  /** 1 to 64 characters of A-Z a-z 0-9 . _ : @ -, but not . or .. */
  clientID: string;
  /** Hears all that the game is told. What it throws goes to the console. */
  onEvent(event: GameEvent): void;
  /** What a guarded service wants to see. */
  token?: string | undefined;
  /** The client's own fuse, if it wants one: it dies after so long without a beat. */
  timebombSeconds?: number | undefined;
  /** The telemetry of a beat: at most 4 KiB as JSON. */
  values?: (() => Readonly<Record<string, unknown>>) | undefined;
}

/** Beats while it runs, and follows its state; in a page it follows the page as well. */
export class GameClient {
  /** Throws a TypeError that names what is wrong with the options. */
  constructor(options: GameClientOptions);
  /** The state that was applied last; DISCONNECTED while it doesn't run. */
  readonly state: State;
  /** Begins to beat, as a new process of this client. */
  start(): void;
  /** Says Goodbye, if there is someone to say it to; done when nothing is open any more, after
   * about two seconds at most. */
  stop(): Promise<void>;
  /** Asks the server to change this client's state. Reports are carried out one after the other,
   * and sent again when no answer comes. Each ends with a StateChanged, a Refused or a Superseded,
   * but for those that a later one has taken back before they were sent. */
  report(state: State): void;
}

/** A client ID as a string; throws a TypeError if the contract allows none such. */
export function checkClientID(value: unknown): string;

/** A server's base URL, without a slash at its end; throws a TypeError if it is none. */
export function baseURL(server: string): string;

/** A server's words for a terminal or a log: one line, not too long, nothing invisible in it. */
export function printable(words: string): string;

// What follows is for other drivers and for tests; a game needs none of it.

/** The body of a ClientState. */
export interface ClientStateBody {
  readonly clientID: string;
  readonly clientState: State;
  readonly sequence: number;
  readonly incarnation: number;
  readonly timebombSeconds: number;
  readonly heartbeatIntervalSeconds: number;
  readonly requestEndpoint: string;
  readonly stateChangeEndpoint: string;
  readonly instanceID?: string;
}

/** The body of an Error, or a problem of HTTP. */
export interface ErrorBody {
  readonly code: string;
  readonly detail: string;
  readonly clientID?: string;
  readonly retryAfterSeconds?: number;
  readonly requestID?: string;
}

/** The body of an OnStateChange. */
export interface ChangeBody {
  readonly clientID: string;
  readonly clientState: State;
  readonly previousState: State;
  readonly reason: string;
  readonly sequence: number;
  readonly incarnation: number;
  readonly instanceID?: string;
}

export interface Bodies {
  ClientState: ClientStateBody;
  Error: ErrorBody;
  OnStateChange: ChangeBody;
}

export type ServerMessage = {
  [Kind in keyof Bodies]: { messageType: Kind; body: Bodies[Kind]; requestID: string | undefined };
}[keyof Bodies];

export type RequestType = "HEARTBEAT" | "GetClientState" | "SetClientState" | "Goodbye";

/** A message that makes no sense; the text says what was expected, and where. */
export class BadMessage extends Error {}

/** There is no answer; the text says why. */
export class NoAnswer extends Error {}

/** The known fields of a body; throws a BadMessage. */
export function readBody<Kind extends keyof Bodies>(kind: Kind, value: unknown, place?: string): Bodies[Kind];

/** A message of a server; throws a BadMessage. */
export function readMessage(json: string): ServerMessage;

/** An error over HTTP, which has no envelope; throws a BadMessage. */
export function readProblem(json: string): ErrorBody;

/** A message as it is sent. */
export function encode(messageType: RequestType, body: object, requestID?: string, now?: Date): string;

/** An event of a text/event-stream. */
export interface StreamEvent {
  readonly data: string;
  readonly event?: string;
  readonly id?: string;
}

/** Cuts a text/event-stream into events. */
export class EventParser {
  /** Takes text as it comes; throws a NoAnswer at an event that is too long. */
  feed(text: string): Generator<StreamEvent, void, undefined>;
}

/** What a session has its driver do; see heartbeat_service/game_client/actions.py. */
export type Action =
  | GameEvent
  | { readonly type: "SendHeartbeat"; readonly body: object }
  | { readonly type: "BeatAfter"; readonly seconds: number }
  | { readonly type: "AskAgainAfter"; readonly seconds: number }
  | { readonly type: "OpenEvents"; readonly requestEndpoint: string; readonly stateChangeEndpoint: string }
  | { readonly type: "SendRequest"; readonly messageType: RequestType; readonly body: object; readonly requestID: string };

export interface SessionOptions {
  clientID: string;
  instanceID: string;
  timebombSeconds?: number | undefined;
  /** From 0 to 1, for the jitter of the backoff. */
  random?: (() => number) | undefined;
}

/** What a client does, and when: events in, actions out. Knows no network and no clock. */
export class Session {
  constructor(options: SessionOptions);
  readonly state: State;
  readonly incarnation: number;
  readonly sequence: number;
  readonly initialised: boolean;
  readonly superseded: boolean;
  readonly interval: number;
  readonly patience: number;
  beat(values?: object): Action[];
  beatAnswered(reply: ClientStateBody): Action[];
  beatFailed(detail: string, retryAfterSeconds?: number): Action[];
  beatRefused(error: ErrorBody): Action[];
  requestAnswered(reply: ClientStateBody, requestID?: string | null): Action[];
  requestRefused(error: ErrorBody, requestID?: string | null): Action[];
  statePublished(change: ChangeBody): Action[];
  publicationsLost(): Action[];
  report(state: State): Action[];
  askAgain(): Action[];
  eventsConnected(): Action[];
  eventsFailed(detail: string): Action[];
  leave(): Action[];
}
