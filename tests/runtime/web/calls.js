// Calls of a session in astrape.js, one after the other, as JSON: frames are base64 of float32, one string a channel.
import { Session } from "/runners/web/astrape.js";

const decoded = (text) => new Float32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
const encoded = (frames) => {
  const bytes = new Uint8Array(frames.buffer, frames.byteOffset, frames.byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
};

export async function answers(ort, read, { options, calls }) {
  try {
    const session = await Session.open(ort, read, options), found = [];
    for (const [name, ...words] of calls) {
      const given = name === "push" ? [words[0].map(decoded)] : words;
      try {
        const answer = await session[name](...given);
        found.push(answer && Object.fromEntries(Object.entries(answer).map(([port, channels]) => [port, channels.map(encoded)])));
      } catch (error) {
        found.push({ error: `${error.constructor.name}: ${error.message}` });
      }
    }
    return { found, hostLatency: session.hostLatency, faults: session.faults };
  } catch (error) {
    return { error: `${error.constructor.name}: ${error.message}` };
  }
}
