/**
 * A command that ends by itself, in seconds or minutes, gains little from code that V8 optimizes in each of its
 * threads: of an upload of 2 GiB that took 8 % of all processor time. With a larger budget V8 waits until
 * a function has run far more; a long run still gets its optimized code. It is V8's flag and not Node's:
 * where a later V8 has dropped it, it does nothing.
 */
import { setFlagsFromString } from "node:v8";

/** To be called before threads are started. */
export function compileLater(): void {
  setFlagsFromString("--interrupt-budget=2000000");
}
