import { defineConfig } from "vitest/config";

// End-to-end tests mount for real and share loop devices and two cores: files run one after another.
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Worker threads inside the code under test resolve to dist/, so `npm run build` comes first.
    pool: "forks",
  },
});
