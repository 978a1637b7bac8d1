// What the programs in JavaScript share: a line for each step.
export function say(what, cameOut) {
  const text = JSON.stringify(cameOut, (_, value) => (typeof value === "bigint" ? `${value}n` : value)) ?? "undefined";
  process.stdout.write(`${what}: ${text.slice(0, 600)}\n`);
}

export function wordsOf(error) {
  const origin = error.original ?? error.cause ?? error;
  return `${error.name} ${error.code ?? origin.code ?? ""} ${String(origin.message ?? origin).trim().split("\n").pop()}`;
}

export async function outcome(what, work) {
  try {
    const answer = await work();
    say(what, answer ?? null);
    return answer;
  } catch (error) {
    say(what, wordsOf(error));
  }
}

export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export async function until(condition, seconds = 20) {
  for (let turn = 0; turn < seconds * 20; turn++) {
    if (await condition()) return true;
    await sleep(50);
  }
  return false;
}
