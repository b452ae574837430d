/**
 * How a command ends. Everything thrown becomes one sentence on standard error and an exit status:
 * 0 done, 1 failed, 2 wrongly asked for, 130 and 143 stopped by SIGINT and SIGTERM. The stack is
 * shown only on request (EBSMOUNT_DEBUG or --log-level debug): to a user it says nothing.
 */

import { Failure } from "../common/failure.js";
import { sharedAbort } from "../common/shared-abort.js";

const SIGNAL_STATUS = { SIGINT: 130, SIGTERM: 143 } as const;

/** Thrown where work stopped because the user asked for it. */
export class Interrupted extends Failure {
  override readonly name = "Interrupted";
  readonly exitStatus: number;

  constructor(signal: keyof typeof SIGNAL_STATUS) {
    super("EINTR", "Interrupted.");
    this.exitStatus = SIGNAL_STATUS[signal];
  }
}

/** Ends a command with a status and nothing said: the one who would read it is gone. */
export class QuietEnd extends Error {
  override readonly name = "QuietEnd";
}

/** A sentence about the command line itself: exit status 2. */
export class UsageFailure extends Failure {
  override readonly name = "UsageFailure";

  constructor(message: string) {
    super("EINVAL", message);
  }
}

/** Actions that have taken over the signals. */
let takers = 0;

/** Lets a signal that comes while nothing has taken it over end the program, with a sentence. */
export function answerSignals(): void {
  const onSignal = (name: NodeJS.Signals) => {
    if (takers > 0) return;
    process.exit(report(new Interrupted(name as keyof typeof SIGNAL_STATUS), false));
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
}

/**
 * Runs `action` with a signal that SIGINT and SIGTERM abort, with Interrupted as the reason. The
 * action then cleans up and throws. A second signal ends the process where it stands.
 */
export async function interruptible<T>(action: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const stop = sharedAbort();
  const onSignal = (name: NodeJS.Signals) => {
    const interrupted = new Interrupted(name as keyof typeof SIGNAL_STATUS);
    if (stop.signal.aborted) process.exit(interrupted.exitStatus);
    stop.abort(interrupted);
  };
  takers += 1;
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  try {
    return await action(stop.signal);
  } catch (error) {
    // A sentence that adds to "Interrupted", or names another failure, is kept. All else that calls
    // throw when they are aborted has one name here.
    const { aborted, reason } = stop.signal;
    const named = error instanceof Failure && (error.errno !== "EINTR" || error.cause === reason);
    if (aborted && !named) throw reason;
    throw error;
  } finally {
    takers -= 1;
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  }
}

/** The exit status for what a command threw, having said it on standard error. */
export function report(error: unknown, debug: boolean): number {
  if (error instanceof QuietEnd) return 1;
  const sentence = error instanceof Error ? error.message : String(error);
  process.stderr.write(`ebsmount: ${sentence}\n`);
  if (debug && error instanceof Error) {
    for (let e: unknown = error; e instanceof Error; e = e.cause) {
      process.stderr.write(`${e === error ? "" : "caused by "}${e.stack}\n`);
    }
  } else if (!(error instanceof Failure)) {
    process.stderr.write("This was not expected; EBSMOUNT_DEBUG=1 shows where it happened.\n");
  }
  if (error instanceof UsageFailure) return 2;
  for (let e: unknown = error; e instanceof Error; e = e.cause) {
    if (e instanceof Interrupted) return e.exitStatus;
  }
  return 1;
}
