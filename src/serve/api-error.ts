/** Errors as clients of the OpenAI API expect them: a status, a sentence, and a type. */

import type { z } from "zod";
import { ExitCode, IndexCacheError, InterruptedError } from "../base/errors.ts";
import { systemErrorCode } from "../base/files.ts";
import { describeIssues } from "../formats/validation.ts";

export type ErrorStatus = 400 | 401 | 403 | 404 | 405 | 413 | 415 | 500 | 503;

/** A request that gets this answer. */
export class ApiError extends Error {
  readonly status: ErrorStatus;
  /** The field of the request that is wrong. */
  readonly param: string | null;

  constructor(status: ErrorStatus, message: string, param: string | null = null) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: number };
}

const types: Readonly<Record<ErrorStatus, string>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  405: "invalid_request_error",
  413: "invalid_request_error",
  415: "invalid_request_error",
  500: "server_error",
  503: "server_error",
};

export function errorBody({ status, message, param }: ApiError): ErrorBody {
  return { error: { message, type: types[status], param, code: status } };
}

/** What a client is told of an error of any kind; what nobody expected is a defect and stays inside. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  // A client that has gone ends its request as a shutdown does; nobody reads the answer, and it is no failure of the server.
  if (error instanceof InterruptedError || isAbort(error)) return new ApiError(503, "The server is shutting down");
  if (error instanceof IndexCacheError) {
    const status = error.exitCode === ExitCode.badInput ? 400 : 500;
    return new ApiError(status, error.hint === undefined ? error.message : `${error.message} (${error.hint})`);
  }
  return new ApiError(500, "The server failed; its log has the reason");
}

/** Also what a body ends with whose client went away while it was sending it. */
function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === "AbortError" || systemErrorCode(error) === "ECONNRESET");
}

/**
 * Checks a request's body.
 * @throws ApiError that names the first field that is wrong
 */
export function checkBody<T>(body: unknown, schema: z.ZodType<T>): T {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const [first] = result.error.issues;
  const field = first?.path[0];
  throw new ApiError(400, `The request: ${describeIssues(result.error)}`, field === undefined ? null : String(field));
}
