/**
 * How much memory V8 takes beyond what is alive in it. A mount lives for long beside other work, and its
 * lists of blocks are much short-lived garbage. Measured by scripts/bench/memory.mjs: neither setting
 * brings a block any later.
 */
import { setFlagsFromString } from "node:v8";

/**
 * Node's own option, for a process to be started: MiB for young objects, in each of its threads. V8's
 * default of 16 keeps some 50 MiB more resident.
 */
export const HEAP_OPTIONS = ["--max-semi-space-size=2"];

/**
 * Bounds what the heap of this process, and of threads started later, may grow to after a collection to
 * three times what is alive (V8's own choice is up to four): some 25 MiB less resident. It is V8's
 * flag and not Node's, so it is set here: where a later V8 has dropped it, it does nothing.
 */
export function boundHeapGrowth(): void {
  setFlagsFromString("--heap-growing-percent=200");
}
