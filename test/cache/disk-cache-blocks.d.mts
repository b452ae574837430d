/** 32 bytes, as blockKey would give. */
export function keyOf(n: number): Buffer;
/** Do not change it. */
export function blockBytes(n: number): Buffer;
