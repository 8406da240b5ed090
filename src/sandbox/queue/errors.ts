/** Errors of the emulated queue, in the shape in which the real one answers them. */

/** The queue's error codes with their HTTP status. */
export const STATUS_CODES = {
  MalformedPayload: 400,
  InputError: 400,
  InputValidationError: 400,
  InvalidRequestArguments: 400,
  AuthenticationFailed: 401,
  InsufficientScopes: 403,
  ResourceNotFound: 404,
  RequestConflict: 409,
  ResourceExpired: 410,
  InternalServerError: 500,
} as const;
/** What a refused call is told, besides words. */
export type ErrorCode = keyof typeof STATUS_CODES;

/** A call that is refused; `message` is what the caller reads. */
export class ApiError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.name = 'ApiError';
    this.code = code;
  }
}

/** What was called, for the error's body. */
export interface RequestInfo {
  /** The method's name, such as `claimTask`. */
  readonly method: string;
  readonly params: Readonly<Record<string, string>>;
  readonly payload: unknown;
}

/** The body of an error answer; `now` is UTC milliseconds. */
export function errorBody(error: ApiError, request: RequestInfo, now: number) {
  const time = new Date(now).toJSON();
  const footer = [
    `* method:     ${request.method}`,
    `* errorCode:  ${error.code}`,
    `* statusCode: ${STATUS_CODES[error.code]}`,
    `* time:       ${time}`,
  ];
  return {
    code: error.code,
    message: `${error.message}\n\n---\n\n${footer.join('\n')}`,
    requestInfo: { ...request, time },
  };
}
