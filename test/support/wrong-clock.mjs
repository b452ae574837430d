/** Preloaded into a process (`node --import`), and so into its threads: its clock is WRONG_CLOCK_MS off. */
const offset = Number(process.env.WRONG_CLOCK_MS);
const Right = globalThis.Date;
const now = () => Right.now() + offset;

globalThis.Date = new Proxy(Right, {
  apply: () => new Right(now()).toString(),
  construct: (_target, args, made) =>
    Reflect.construct(Right, args.length === 0 ? [now()] : args, made),
  get: (target, name) => (name === "now" ? now : Reflect.get(target, name)),
});
