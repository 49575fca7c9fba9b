// Asks the service: one fetch a question, the operator's token with each, and its errors
// as sentences. Knows what time it is there. Knows no client, no route's meaning and no
// element.

const KEY = "heartbeat-token";

/** Keeps the token in this tab alone, until it is closed. */
const inTab = {
  get token() {
    return sessionStorage.getItem(KEY);
  },
  set token(token) {
    if (token) sessionStorage.setItem(KEY, token);
    else sessionStorage.removeItem(KEY);
  },
};
const PATIENCE = 10_000;

/**
 * What the service refused, or why it couldn't be asked.
 * `status` is 0 and `code` "UNREACHABLE" where no answer came; else they are those of the
 * problem+json, `message` is its detail, `clientID` the client that it is about, if any.
 */
export class ServiceError extends Error {
  constructor({ status = 0, code = "UNREACHABLE", detail = "The service can't be reached", clientID = null } = {}) {
    super(detail);
    Object.assign(this, { name: "ServiceError", status, code, clientID });
  }
}

export class Service {
  /** Is called when the service wants another token than it was given. */
  onunauthorized = () => {};
  #offset = null;
  #spread = Infinity;

  #keeper;

  /** @param keeper has the token. */
  constructor(keeper = inTab) {
    this.#keeper = keeper;
  }

  get token() {
    return this.#keeper.token;
  }

  set token(token) {
    this.#keeper.token = token;
  }

  /** What time it is at the service, in milliseconds since the epoch. */
  now() {
    return performance.timeOrigin + performance.now() + (this.#offset ?? 0);
  }

  /** A moment of the service's clock on the axis of performance.now(). */
  local(time) {
    return time - this.now() + performance.now();
  }

  get = (path, options) => this.ask("GET", path, undefined, options);
  put = (path, body, options) => this.ask("PUT", path, body, options);
  post = (path, body, options) => this.ask("POST", path, body, options);
  delete = (path, body, options) => this.ask("DELETE", path, body, options);

  /** The JSON of an answer, null where it has none; throws a ServiceError. */
  async ask(method, path, body, { patience = PATIENCE } = {}) {
    const response = await this.open(path, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(patience),
    });
    try {
      return response.status === 204 ? null : await response.json();
    } catch {
      throw new ServiceError();
    }
  }

  /** The response itself, as soon as its head is there; throws a ServiceError. */
  async open(path, { headers = {}, ...options } = {}) {
    const token = this.token;
    if (token) headers.Authorization = `Bearer ${token}`;
    const asked = performance.now();
    let response;
    try {
      response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
    } catch {
      throw new ServiceError();
    }
    this.#read(response.headers.get("Date"), performance.now() - asked);
    if (!response.ok) await this.#fail(response, token);
    return response;
  }

  /** Sets the clock by a serverTime, which is finer than the head's Date. */
  tell(serverTime, spent = 0) {
    const time = Date.parse(serverTime) + spent / 2;
    if (Number.isNaN(time)) return;
    this.#offset = time - performance.timeOrigin - performance.now();
    this.#spread = 0;
  }

  // A Date is cut to whole seconds: half of one is what it is wrong by on average.
  #read(date, spent) {
    const time = Date.parse(date ?? "");
    if (this.#spread === 0 || Number.isNaN(time) || spent > this.#spread) return;
    this.#offset = time + 500 + spent / 2 - performance.timeOrigin - performance.now();
    this.#spread = spent;
  }

  async #fail(response, token) {
    let problem = {};
    try {
      problem = await response.json();
    } catch {
      // A proxy's own page says nothing that helps.
    }
    if (response.status === 401 && token === this.token) this.onunauthorized(Boolean(token));
    throw new ServiceError({
      status: response.status,
      code: problem.code ?? "UNKNOWN",
      detail: problem.detail ?? `${response.status} ${response.statusText}`.trim(),
      clientID: problem.clientID ?? null,
    });
  }
}
