// Operations of a script for node: the same lines for the runner as operations.py prints.
//
// The first line names all operations; then one line each as it ends. Whatever the client itself prints goes to standard error.

import { readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';

// Longer than anything takes on a chain of 250 ms blocks, epochs included. Only what hangs takes as long.
const PATIENCE_MS = 40_000;
const LOOPBACK = ['127.0.0.1', '::1', 'localhost'];

const plan = [];
const refused = [];

for (const name of ['log', 'info', 'warn', 'debug']) console[name] = console.error;

const connect = Socket.prototype.connect;
Socket.prototype.connect = function loopbackOnly(...args) {
  const given = Array.isArray(args[0]) ? args[0][0] : args[0];
  const host = given?.host ?? (given?.path ? undefined : 'localhost');
  if (host !== undefined && !LOOPBACK.includes(host)) {
    refused.push(host);
    throw new Error(`${host} is not loopback`);
  }
  return connect.apply(this, args);
};

export const url = process.env.CONFORMANCE_URL;
export const facts = JSON.parse(readFileSync(process.env.CONFORMANCE_GENESIS, 'utf8'));

/** An amount of the genesis file in rao. */
export function rao(tao) {
  const [whole, part = ''] = tao.split('.');
  return BigInt(whole) * 1_000_000_000n + BigInt(part.padEnd(9, '0') || '0');
}

/** Declares an operation that must pass. */
export function operation(name, run) {
  plan.push({ name, run });
}

/** Declares an operation that no chain of this spec can serve: it must fail with `error`, a regular expression. */
export function impossible(name, { why, error }, run) {
  plan.push({ name, run, why, error });
}

export function that(condition, what) {
  if (!condition) throw new Error(what);
}

export function equal(what, got, want) {
  const text = (value) => JSON.stringify(value, (_, part) => (typeof part === 'bigint' ? `${part}n` : part));
  if (!isDeepStrictEqual(got, want)) throw new Error(`${what}: got ${text(got)}, want ${text(want)}`);
}

export async function until(what, condition, milliseconds = PATIENCE_MS) {
  const deadline = Date.now() + milliseconds;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${milliseconds} ms`);
    await sleep(100);
  }
}

function tell(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function run({ name, run: body, why = '', error: expected }) {
  const started = Date.now();
  const patience = new AbortController();
  const late = sleep(PATIENCE_MS, undefined, { signal: patience.signal }).then(() => {
    throw new Error(`no answer within ${PATIENCE_MS} ms`);
  });
  let raised;
  try {
    await Promise.race([body(), late]);
  } catch (error) {
    raised = error;
  } finally {
    patience.abort();
    late.catch(() => {});
  }
  const said = String(raised?.message ?? raised).replace(/\s+/g, ' ').slice(0, 600);
  const line = { operation: name, result: 'passed', why: '', ms: Date.now() - started };
  if (expected === undefined) {
    if (raised !== undefined) Object.assign(line, { result: 'failed', why: said });
  } else if (raised === undefined) {
    Object.assign(line, { result: 'failed', why: 'it works, so it must no longer be listed as impossible' });
  } else if (!expected.test(said)) {
    Object.assign(line, { result: 'failed', why: `expected an error with ${expected}: ${said}` });
  } else {
    Object.assign(line, { result: 'impossible', why });
  }
  if (line.result === 'failed') console.error(name, raised);
  tell(line);
}

/** Runs every operation, one after the other, and ends the process. */
export async function runAll() {
  const loopback = 'no address but loopback';
  tell({ plan: [...plan.map(({ name }) => name), loopback] });
  for (const one of plan) await run(one);
  tell({ operation: loopback, result: refused.length ? 'failed' : 'passed', why: refused.join('; '), ms: 0 });
  process.exit(0);
}
