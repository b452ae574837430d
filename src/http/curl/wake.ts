/**
 * Wakes a thread that waits inside libcurl when a message was posted to it. Two words of shared memory go
 * with it: MESSAGES counts the messages, IS_WAITING says whether the thread waits, so that a busy one costs no
 * system call. The thread sets IS_WAITING before it looks at MESSAGES for the last time; the sender counts
 * before it looks at IS_WAITING; so one of the two sees the other.
 */
import { loadKoffi } from "../../common/libc.js";
import type { Pointer } from "./library.js";

const MESSAGES = 0;
const IS_WAITING = 1;

/** Plain data for another thread. */
export interface WakeHandle {
  readonly multi: Pointer;
  readonly words: Int32Array;
}

export function makeWakeHandle(multi: Pointer): WakeHandle {
  return { multi, words: new Int32Array(new SharedArrayBuffer(8)) };
}

/** @returns what to call after each message was posted. @throws Failure ENOSYS */
export function wakerOf({ multi, words }: WakeHandle): () => void {
  const wake = loadKoffi()
    .load("libcurl.so.4", { deep: true })
    .func("int curl_multi_wakeup(void *multi)");
  return () => {
    Atomics.add(words, MESSAGES, 1);
    if (Atomics.load(words, IS_WAITING) !== 0) wake(multi);
  };
}

/** The waiting thread's side. */
export function messagesOf({ words }: WakeHandle): number {
  return Atomics.load(words, MESSAGES);
}

/** To be called around each wait. */
export function setWaiting({ words }: WakeHandle, isWaiting: boolean): void {
  Atomics.store(words, IS_WAITING, isWaiting ? 1 : 0);
}
