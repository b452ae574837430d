/** A DirectReads module for tests: answers whole 4 KiB-aligned reads with one byte value. */
export function openDirectReader(data) {
  const bytes = Buffer.alloc(1 << 20, data.byte);
  const parts = [bytes];
  return {
    tryRead(_inode, offset, length) {
      if (offset >= data.limit || offset + length > data.size) return undefined;
      parts[0] = bytes.subarray(0, length);
      return parts;
    },
    done() {},
  };
}
