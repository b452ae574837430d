/** Zero bytes to compare with and to write: one shared piece of memory, never changed. */
import { MIB } from "./sizes.js";

/** 1 MiB of zeros. */
export const ZEROS: Buffer = Buffer.alloc(MIB);

/** Whether all bytes are zero; stops at the first piece that is not. */
export function isZeros(bytes: Uint8Array): boolean {
  if (bytes.length > 0 && bytes[0] !== 0) return false;
  for (let at = 0; at < bytes.length; at += ZEROS.length) {
    const end = Math.min(bytes.length, at + ZEROS.length);
    if (ZEROS.compare(bytes, at, end, 0, end - at) !== 0) return false;
  }
  return true;
}
