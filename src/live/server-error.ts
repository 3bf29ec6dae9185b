/** What can go wrong with a server, as far as callers treat it differently. */
import { RuntimeFailure } from "../base/errors.ts";

/** No answer, or not a whole one, and trying again has not helped. What a server does elsewhere may still succeed. */
export class LostServer extends RuntimeFailure {}

/** No whole answer within `--timeout`. */
export class SlowServer extends LostServer {}

/** The server has answered with a status that says no. */
export class ServerRefusal extends RuntimeFailure {
  readonly status: number;

  constructor(message: string, status: number, details: { hint?: string; cause?: unknown } = {}) {
    super(message, details);
    this.status = status;
  }
}

/** The server is another one than before: it was restarted, and has lost what it was told. */
export class ServerRestarted extends RuntimeFailure {}
