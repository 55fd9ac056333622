// What a person does with the dashboard, in a real browser. See `run`.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { call, start, traffic } from "./cluster.mjs";

const [binary, shots] = process.argv.slice(2);
const PATIENCE = 30_000;
const TOPIC = "orders";
const PARTITIONS = 24;
const EXAMPLES = [
  '{"source":"client_A","payload":{"metric":"purchase","amount":"1200","timestamp":"2024/01/01"}}',
  '{"client_id":"client_B","event_type":"click","value":500,"date":"2024-01-15T10:30:00Z"}',
  '[{"origin":"client_C","name":"refund","price":"12.50","ts":1705314600},{"clientId":"client_C","count":"many"},{"client":"client_D","type":"view","quantity":3,"createdAt":1705314600123}]',
];
const FAILING = '{"source":"client_A","payload":{"metric":"purchase","amount":7}}';

let cluster, browser, context, page, moving;
const complaints = [];

before(async () => {
  mkdirSync(shots, { recursive: true });
  cluster = await start(binary);
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
  context = await browser.newContext({ viewport: { width: 1280, height: 860 }, colorScheme: "light", locale: "en-GB" });
  page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("pageerror", (error) => complaints.push(`script: ${error.message}`));
  page.on("console", (message) => message.text().includes("Content Security Policy") && complaints.push(message.text()));
  page.on("request", (request) => request.url().startsWith(cluster.http(1)) || complaints.push(`asked for ${request.url()}`));
});

after(async () => {
  await moving?.stop();
  await browser?.close();
  await cluster?.stop();
});

async function go(hash) {
  await page.goto(`${cluster.http(1)}/#/${hash}`);
  await page.waitForSelector(".live.live");
}

async function shot(name) {
  await page.screenshot({ path: join(shots, `${name}.png`) });
}

async function submit(json, fail = false) {
  await page.fill("textarea", json);
  await page.setChecked("input[type=checkbox]", fail);
  const answered = page.waitForResponse((response) => response.url().includes("/api/events") && response.request().method() === "POST");
  await page.click("button.primary");
  await (await answered).finished();
  await page.waitForSelector("[data-testid=answer]");
  return page.textContent(".results");
}

/// Rows of a table as text.
async function rows(label) {
  return page.$$eval(`table[aria-label="${label}"] tbody tr`, (found) => found.map((row) => [...row.cells].map((cell) => cell.innerText.trim())));
}

const until = (what, argument) => page.waitForFunction(what, argument, { polling: 50 });

test("an empty cluster says what to do", async () => {
  await go("");
  await page.getByText("Nothing waits").waitFor();
  await go("topics");
  await page.getByText("No topics so far").waitFor();
  await go("groups");
  await page.getByText("No group so far").waitFor();
  await shot("empty-groups");
});

test("the issue's examples are processed, rejected, recognised and dead-lettered, and the aggregates count them", async () => {
  await go("ingest");
  for (const [json, words] of [[EXAMPLES[0], "1 processed, 0 failed"], [EXAMPLES[1], "1 processed, 0 failed"], [EXAMPLES[2], "2 processed, 1 failed"]]) {
    const answer = await submit(json);
    assert.ok(answer.includes(words), answer);
    assert.ok(!answer.includes("duplicate"), answer);
  }
  assert.ok((await submit(EXAMPLES[1])).includes("duplicate"), "a resend is recognised");
  assert.ok((await submit(FAILING, true)).includes("failed"));
  await submit(EXAMPLES[2]);
  await until(() => document.querySelectorAll('table[aria-label="Aggregates"] tbody tr').length === 4);
  assert.deepEqual(await rows("Aggregates"), [
    ["client_A", "purchase", "1", "1200", "1200", "1200", "1200"],
    ["client_B", "click", "1", "500", "500", "500", "500"],
    ["client_C", "refund", "1", "12.5", "12.5", "12.5", "12.5"],
    ["client_D", "view", "1", "3", "3", "3", "3"],
  ]);
  await shot("ingest-light");
  await page.getByLabel("Client", { exact: true }).fill("client_C");
  await until(() => document.querySelectorAll('table[aria-label="Aggregates"] tbody tr').length === 1);
  await page.getByRole("tab", { name: "Rejected" }).click();
  await page.getByText("is not a number").first().waitFor();
  await page.getByRole("tab", { name: "Dead-lettered" }).click();
  await page.waitForSelector('table[aria-label="Events: failed"]');
  const [failed] = await rows("Events: failed");
  assert.deepEqual(failed.slice(1, 5), ["client_A", "purchase", "7", "5"]);
});

test("rates, latency and lag move while there is traffic", async () => {
  await call("POST", `${cluster.http(1)}/v1/topics`, { name: TOPIC, partitions: PARTITIONS, replicationFactor: 3 });
  moving = traffic(cluster, TOPIC, PARTITIONS);
  await go("");
  await until(() => {
    const stats = [...document.querySelectorAll(".stat")].map((stat) => stat.innerText);
    const number = (name) => Number((stats.find((text) => text.startsWith(name)) ?? "").match(/\n([\d.,]+)/)?.[1]?.replaceAll(",", "") ?? 0);
    return number("Events in") > 0 && number("Events out") > 0 && number("Write p99") > 0 && number("Queue depth") > 0;
  });
  await page.getByRole("link", { name: "analytics" }).waitFor();
});

test("records are found by offset, by time and by key, and their JSON is shown", async () => {
  await go(`topics/${TOPIC}?partition=3`);
  await page.waitForSelector(".record");
  await page.getByLabel("Find by").selectOption("offset");
  await page.getByLabel("From offset").fill("2");
  await page.getByRole("button", { name: "Show" }).click();
  await until(() => document.querySelector(".record .offset")?.textContent === "2");
  await page.locator(".record").first().press("Enter");
  assert.match(await page.textContent(".record-more pre"), /"total": \{\n {4}"amount": /);
  await shot("records-light");
  await page.getByLabel("Find by").selectOption("time");
  await page.getByRole("button", { name: "Show" }).click();
  await until(() => document.querySelector(".record .offset")?.textContent === "0");
  await page.getByLabel("Find by").selectOption("key");
  await page.getByLabel("Key, exactly").fill("customer-7");
  await page.getByRole("button", { name: "Search" }).click();
  await page.waitForSelector(".record .key");
  await until(() => [...document.querySelectorAll(".record .key")].every((key) => key.textContent === "customer-7"));
});

test("a group shows its members, what they have and how far they are", async () => {
  await go("groups");
  await page.getByRole("link", { name: "notifications" }).click();
  await page.getByText("generation").first().waitFor();
  await until((count) => document.querySelectorAll(".chip").length === count, PARTITIONS);
  await page.getByText(`${TOPIC}-0`).first().waitFor();
  await shot("group-light");
});

test("a killed node shows on the picture, its partitions get leaders, and it comes back", async () => {
  await go("cluster");
  await until((count) => document.querySelectorAll('[data-node="2"] rect').length >= count, PARTITIONS);
  await shot("cluster-light");
  process.kill(cluster.pid(2), "SIGKILL");
  const killed = performance.now();
  await until(() => /Not answering|Down/.test(document.querySelector('[data-node="2"]')?.textContent ?? ""));
  console.log(`# on the picture ${Math.round(performance.now() - killed)} ms after the kill`);
  await until(() => document.querySelector(".events")?.textContent.includes("led by node"));
  console.log(`# first election on the picture after ${Math.round(performance.now() - killed)} ms`);
  await page.emulateMedia({ colorScheme: "dark" });
  await page.waitForTimeout(300);
  await shot("cluster-dark-node-down");
  await until(() => document.querySelector('[data-node="2"]')?.textContent.includes("Serving"));
  await page.emulateMedia({ colorScheme: "light" });
});

test("a button starts the demonstration: rate, lag and latency move, a killed node does not end it, and it stops", async () => {
  await go("");
  const card = page.locator("section", { has: page.getByRole("heading", { name: "Demonstration" }) });
  const rate = card.getByLabel("Payments a minute", { exact: true });
  await rate.fill("60000");
  await card.getByRole("button", { name: "Start the demonstration" }).press("Enter");
  await card.getByText("Running").waitFor();
  const acknowledged = async () => Number((await card.getByTestId("demo-acknowledged").textContent()).replaceAll(",", ""));
  await until(() => {
    const text = (id) => document.querySelector(`[data-testid=${id}]`)?.textContent ?? "";
    const reads = [...document.querySelectorAll("[data-group] td:nth-child(4)")].map((cell) => Number.parseFloat(cell.textContent));
    return Number(text("demo-achieved").replaceAll(",", "")) > 10_000 && /\d ms|\d s/.test(text("demo-p99")) && reads.length === 3 && reads.every((number) => number > 0);
  });
  await until(() => Number(document.querySelector(".stat .stat-value")?.textContent.match(/^[\d.,]+/)?.[0].replaceAll(",", "")) > 100);
  // The slow group falls behind.
  await until(() => Number.parseFloat(document.querySelector('[data-group="demo.notifications"] td:nth-child(3)')?.textContent.replaceAll(",", "")) > 2_000);
  await shot("demo-light");
  const slider = card.getByLabel("Payments a minute, slider");
  const before = await rate.inputValue();
  for (let i = 0; i < 5; i += 1) await slider.press("ArrowRight");
  const after = await rate.inputValue();
  assert.ok(Number(after) > Number(before), `${before} to ${after}`);
  await card.getByText(`a minute of ${Number(after).toLocaleString("en")}`).waitFor();

  const other = await context.newPage();
  await other.goto(`${cluster.http(2)}/#/`);
  await other.getByText("Runs elsewhere").waitFor({ timeout: PATIENCE });
  await other.getByRole("link", { name: new URL(cluster.http(1)).host }).waitFor();
  await other.close();

  await go("cluster");
  await until(() => document.querySelector('[data-node="3"]')?.textContent.includes("Serving"));
  process.kill(cluster.pid(3), "SIGKILL");
  const killed = performance.now();
  await until(() => /Not answering|Down/.test(document.querySelector('[data-node="3"]')?.textContent ?? ""));
  console.log(`# under the demonstration, on the picture ${Math.round(performance.now() - killed)} ms after the kill`);
  await go("");
  const then = await acknowledged();
  await page.waitForFunction((then) => Number(document.querySelector("[data-testid=demo-acknowledged]")?.textContent.replaceAll(",", "")) > then + 5_000, then);

  await page.setViewportSize({ width: 390, height: 844 });
  // Not too wide for a phone, once the plots have been drawn anew.
  await until(() => document.documentElement.scrollWidth <= innerWidth);
  await card.getByRole("button", { name: "Stop the demonstration" }).click();
  await card.getByText("it was stopped").waitFor();
  await card.getByRole("button", { name: "Start the demonstration" }).waitFor();
  await page.setViewportSize({ width: 1280, height: 860 });
});

test("light, dark and a phone", async () => {
  await go("");
  await page.waitForTimeout(8_000);
  await shot("overview-light");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.waitForTimeout(1_200);
  await shot("overview-dark");
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await background();
  await page.getByTitle("Light, dark").click();
  assert.notEqual(await background(), dark, "the switch overrules the system");
  await page.getByTitle("Light, dark").click();
  assert.equal(await background(), dark);
  await page.getByTitle("Light, dark").click();
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 390, height: 844 });
  for (const hash of ["", "cluster", "topics", `topics/${TOPIC}`, "groups", "groups/notifications", "ingest"]) {
    await go(hash);
    await page.waitForTimeout(1_000);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `#/${hash} is ${wide} pixels too wide for a phone`);
    if (["", "cluster", "ingest"].includes(hash)) await shot(`phone-${hash || "overview"}`);
  }
  await page.setViewportSize({ width: 1280, height: 860 });
});

test("the keyboard is enough", async () => {
  await go("cluster");
  await page.reload();
  await page.waitForSelector(".paged-row");
  await page.keyboard.press("Tab");
  assert.match(await page.evaluate(() => document.activeElement.textContent), /Skip/);
  await page.locator(".paged-body").focus();
  for (let i = 0; i < 15; i += 1) await page.keyboard.press("ArrowDown");
  await until(() => document.querySelector(".paged-row.focused")?.getAttribute("aria-rowindex") === "16");
  await page.keyboard.press("Enter");
  await until(() => location.hash.startsWith("#/topics/"));
});

test("when no node answers, the page says so and recovers", async () => {
  await go("cluster");
  await page.route("**/v1/live", (route) => route.abort());
  process.kill(cluster.pid(1), "SIGKILL");
  await page.getByText("This gateway does not answer; trying again").waitFor();
  await page.unroute("**/v1/live");
  await page.waitForSelector(".live.live");
  await until(() => document.querySelector(".banner") === null);
});

test("nothing was asked of anybody else, and nothing broke the page's policy", () => {
  assert.deepEqual(complaints, []);
});
