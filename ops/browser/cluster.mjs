// `strandline dev` in a directory of its own, on free ports, ended with the test.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

async function freePort(from) {
  for (let port = from; ; port += 20) {
    const free = await Promise.all(
      Array.from({ length: 12 }, (_, i) => port + i).map(
        (one) =>
          new Promise((done) => {
            const server = createServer().once("error", () => done(false));
            server.listen(one, "127.0.0.1", () => server.close(() => done(true)));
          }),
      ),
    );
    if (free.every(Boolean)) return port;
  }
}

export async function start(binary) {
  const directory = mkdtempSync(join(tmpdir(), "strandline-browser-"));
  const port = await freePort(21_000 + (process.pid % 300) * 20);
  const ports = ["--grpc-port", port, "--peer-port", port + 3, "--kafka-port", port + 6, "--http-port", port + 9];
  const child = spawn(binary, ["dev", "--data-dir", join(directory, "data"), ...ports.map(String)], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((done) => child.once("exit", done));
  let output = "";
  await new Promise((ready, failed) => {
    child.stdout.on("data", (text) => {
      output += text;
      if (/^ready/m.test(output)) ready();
    });
    child.once("exit", (code) => failed(new Error(`dev ended with ${code}: ${output}`)));
  });
  return {
    http: (node) => `http://127.0.0.1:${port + 8 + node}`,
    pid: (node) => Number(readFileSync(join(directory, "data", `node-${node}`, "pid"), "utf8")),
    async stop() {
      child.kill("SIGINT");
      await ended;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/// Sends JSON; returns the answer's document.
export async function call(method, url, body) {
  const init = body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const response = await fetch(url, { method, ...init });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${text}`);
  return text === "" ? null : JSON.parse(text);
}

/// Writes batches and reads some of them back in a group until it is told to stop, so that there is something to see.
export function traffic(cluster, topic, partitions) {
  let going = true;
  let written = 0;
  const write = async () => {
    while (going) {
      const batch = Array.from({ length: 20 }, (_, i) => ({
        key: `customer-${(written + i) % 40}`,
        partition: (written + i) % partitions,
        value: { order: written + i, total: { amount: ((written + i) % 90) + 0.5, currency: "EUR" }, items: ["book", "pen"] },
        headers: { source: "browser-test" },
      }));
      await call("POST", `${cluster.http(1)}/v1/topics/${topic}/records`, batch).catch(() => {});
      written += batch.length;
      await new Promise((done) => setTimeout(done, 50));
    }
  };
  const read = async (group, pause) => {
    const joined = await call("POST", `${cluster.http(1)}/v1/groups/${group}/consumers`, { topics: [topic] });
    const path = `${cluster.http(1)}${joined.path}`;
    while (going) {
      const answer = await call("GET", `${path}/records?max=200&wait_ms=500`).catch(() => null);
      if (answer?.events.length > 0) await call("POST", `${path}/offsets`, {}).catch(() => {});
      await new Promise((done) => setTimeout(done, pause));
    }
    await call("DELETE", path).catch(() => {});
  };
  const all = Promise.allSettled([write(), read("notifications", 50), read("analytics", 1500)]);
  return {
    async stop() {
      going = false;
      const [...results] = await all;
      for (const result of results) if (result.status === "rejected") throw result.reason;
    },
  };
}
