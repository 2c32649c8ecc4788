// node bullmq.cjs life|now PORT COUNT: what BullMQ takes for COUNT jobs that do nothing.
// life: seconds from the first add to the last completion; now: how many ms each waited for its start.
const { fork } = require("child_process");
const { Queue, Worker } = require("bullmq");

const [what, port, count] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const connection = { host: "127.0.0.1", port, maxRetriesPerRequest: null };
const now = () => performance.timeOrigin + performance.now();
const gone = { removeOnComplete: true, removeOnFail: true };

process.on("disconnect", () => process.exit(0)); // the worker goes with its producer
if (what === "worker") {
  // A process of its own, as our worker is.
  const worker = new Worker("q", async () => process.send({ started: now() }), { connection, concurrency: 1 });
  worker.waitUntilReady().then(() => process.send("ready"));
} else if (what === "many") {
  let done = 0;
  const worker = new Worker("q", async () => {}, { connection, concurrency: 100 });
  worker.on("completed", () => ++done === count && process.send("done"));
  worker.waitUntilReady().then(() => process.send("ready"));
} else {
  const child = fork(__filename, [what === "life" ? "many" : "worker", port, count]);
  const queue = new Queue("q", { connection });
  const next = () => new Promise((resolve) => child.once("message", resolve));
  (async () => {
    await Promise.all([next(), queue.waitUntilReady()]);
    if (what === "life") {
      const began = now(), done = next();
      for (let at = 0; at < count; at += 100)
        await queue.addBulk(Array.from({ length: Math.min(100, count - at) }, () => ({ name: "j", data: {}, opts: gone })));
      await done;
      console.log(JSON.stringify((now() - began) / 1000 + 1e-9));
    } else {
      const waited = [];
      for (let i = 0; i < count; i++) {
        const began = now(), started = next();
        await queue.add("j", {}, gone);
        waited.push((await started).started - began);
      }
      console.log(JSON.stringify(waited));
    }
    child.kill();
    process.exit(0);
  })();
}
