"use strict";
const $ = (id) => document.getElementById(id);
// For the way to the server and back; constant, and told. A slow machine takes more: ?wait=300 in the address.
const WAIT_MS = Math.min(3000, Math.max(40, +new URLSearchParams(location.search).get("wait") || 100));
const HEARD = "You are heard. Wear headphones.";
const SLOW = "The computer is too slow: blocks are lost, and silence is heard in their place.";
const SLEEPS = "The browser sleeps: press the first button to wake it.";
const say = (line, bad = false) => { $("status").textContent = line; $("status").classList.toggle("bad", bad); };

let slow = 0, slowAt = 0, context, node, socket, stream, dry = false, hello = null, late = 0, retry = null;
let recording = null, reference = null, card = false;
const peaks = { in: 0, out: 0 };

// Of the sound: while the browser sleeps, that is what there is to say.
const asleep = () => Boolean(context) && context.state === "suspended";
const tell = (line, bad = false) => say(asleep() ? SLEEPS : line, bad || asleep());
const send = (what) => { if (socket && socket.readyState === 1) socket.send(JSON.stringify(what)); };
const ms = (frames) => `${(1000 * frames / context.sampleRate).toFixed(1)} ms`;

function latency() {
  const device = (context.baseLatency || 0) + (context.outputLatency || 0);
  $("graph").textContent = ms(hello.latency);
  $("way").textContent = `${WAIT_MS} ms`;
  $("device").textContent = device ? `${(1000 * device).toFixed(1)} ms and the microphone's` : "not told by the browser";
  const whole = 1000 * (hello.latency / context.sampleRate + device) + WAIT_MS;
  $("sum").textContent = `${whole.toFixed(1)} ms`;
  const parts = hello.parts.map(([name, seconds]) => [name, 1000 * seconds, "graph"]);
  parts.push(["server and back", WAIT_MS, "way"]);
  if (device) parts.push(["browser's output", 1000 * device, "way"]);
  waterfall(parts, whole);
}

// The report's picture: each part begins where the one before it ends, and their sum stands below.
function waterfall(parts, whole) {
  let begin = 0;
  const row = (name, length, kind, from) => {
    const line = document.createElement("div"), track = document.createElement("span"), bar = document.createElement("div");
    const [label, value] = [document.createElement("span"), document.createElement("span")];
    line.className = `part ${kind}`;
    line.setAttribute("role", "listitem");
    [label.textContent, label.title, value.textContent] = [name, name, `${length.toFixed(1)} ms`];
    bar.className = "bar";
    bar.style.marginLeft = `${100 * from / whole}%`;
    bar.style.width = `${100 * length / whole}%`;
    track.append(bar);
    line.append(label, track, value);
    return line;
  };
  const lines = parts.map(([name, length, kind]) => { begin += length; return row(name, length, kind, begin - length); });
  $("waterfall").replaceChildren(...lines, row("in all", whole, "whole", 0));
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/sound`);
  socket.binaryType = "arraybuffer";
  hello = null;
  socket.onopen = () => {
    if (card) { send({ card: { input: $("card-in").value || null, output: $("card-out").value || null } }); return; }
    send({ rate: context.sampleRate, block: node.block, wait: WAIT_MS });
  };
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") {
      const number = new DataView(data).getUint32(0, true);
      const samples = new Float32Array(data, 4);
      node.port.postMessage({ number, samples });
      return;
    }
    const told = JSON.parse(data);
    if (told.error) { stop(); say(told.error, true); return; }
    if (told.warning) say(told.warning, true);
    if (told.card) { byCard(told); return; }
    if (told.latency !== undefined) {
      hello = told;
      tell(HEARD);
      latency();
      const set = values();
      send($("voice") ? { voice: $("voice").value, dry, set } : { dry, set });
    }
    if (told.load !== undefined) {
      const lost = told.dropouts + late;
      if (lost > slow) {
        if (lost - slow > 5) tell(SLOW, true);
        [slow, slowAt] = [lost, performance.now()];
      } else if (performance.now() - slowAt > 2000 && $("status").textContent === SLOW) tell(HEARD);
      $("load").textContent = `${(100 * told.load).toFixed(0)} %, worst ${(100 * told.worst).toFixed(0)} %`;
      $("dropouts").textContent = `${told.dropouts} at the server, ${late} on the way`;
    }
  };
  socket.onclose = () => {
    hello = null;
    if (!context && !card) return;
    say("The connection is lost: trying again every second.", true);
    retry = setTimeout(connect, 1000);
  };
}

// What the server tells of the sound card: it speaks there, and the page shows it.
function byCard(told) {
  if (!hello) {
    hello = told;
    say(`You are heard through the sound card, ${told.card}. Wear headphones.`);
    const set = values();
    send($("voice") ? { voice: $("voice").value, dry, set } : { dry, set });
  }
  [peaks.in, peaks.out] = told.levels.map((level) => Math.pow(10, level / 20));
  const whole = 1000 * told.parts.reduce((sum, [, seconds]) => sum + seconds, 0);
  const length = Object.fromEntries(told.parts.map(([name, seconds]) => [name, `${(1000 * seconds).toFixed(1)} ms`]));
  $("graph").textContent = length.graph;
  $("way").textContent = length.worker;
  $("device").textContent = `${length["device in"]} and ${length["device out"]}`;
  $("sum").textContent = `${whole.toFixed(1)} ms`;
  waterfall(told.parts.map(([name, seconds]) => [name, 1000 * seconds, name === "graph" ? "graph" : "way"]), whole);
  $("load").textContent = `${(100 * told.load).toFixed(0)} %, worst ${(100 * told.worst).toFixed(0)} %`;
  $("dropouts").textContent = `${told.dropouts}, and ${told.xruns} by the system`;
}

function begun(on) {
  $("start").textContent = on ? "Stop" : "Start";
  $("start").setAttribute("aria-pressed", String(on));
  for (const id of ["through", "card-in", "card-out"]) $(id).disabled = on;
}

async function start() {
  if ($("through").value === "card") {
    card = true;
    say("Opening the sound card …");
    connect();
    begun(true);
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
  } catch (error) {
    say(`No microphone: ${error.message}. Allow it for this page, or plug one in.`, true);
    return;
  }
  context = new AudioContext({ latencyHint: "interactive" });
  await context.audioWorklet.addModule("/worklet.js");
  const block = Math.round(context.sampleRate / 100);
  node = new AudioWorkletNode(context, "wire", {
    numberOfInputs: 1, numberOfOutputs: 1, outputChannelCount: [1],
    processorOptions: { block, wait: Math.round(context.sampleRate * WAIT_MS / 1000) },
  });
  node.block = block;
  node.port.onmessage = ({ data }) => {
    if (data.late !== undefined) { late = data.late; return; }
    for (const x of data.samples) peaks.in = Math.max(peaks.in, Math.abs(x));
    for (const x of data.played) peaks.out = Math.max(peaks.out, Math.abs(x));
    if (recording) recording.push(data.played);
    if (reference) reference.push(data.samples);
    if (!hello || socket.readyState !== 1) return;
    const message = new ArrayBuffer(4 + 4 * data.samples.length);
    new DataView(message).setUint32(0, data.number, true);
    new Float32Array(message, 4).set(data.samples);
    socket.send(message);
  };
  const analyser = context.createAnalyser();
  analyser.fftSize = 2048;
  context.createMediaStreamSource(stream).connect(node).connect(analyser);
  node.connect(context.destination);
  context.onstatechange = () => { if (asleep()) tell(SLEEPS); };
  draw(analyser);
  connect();
  begun(true);
  for (const id of ["record", "make"]) if ($(id)) $(id).disabled = false;
}

function stop() {
  clearTimeout(retry);
  const open = context;
  context = null;
  card = false;
  if (socket) socket.close();
  hello = null;
  if (stream) stream.getTracks().forEach((track) => track.stop());
  if (open) open.close();
  begun(false);
  for (const id of ["record", "make"]) if ($(id)) $(id).disabled = true;
}

function meters() {
  for (const way of ["in", "out"]) {
    const db = 20 * Math.log10(Math.max(peaks[way], 1e-6));
    $(`level-${way}`).value = Math.max(-60, db);
    $(`db-${way}`).textContent = db < -60 ? "silent" : `${db.toFixed(0)} dB${db > -0.1 ? ", clips" : ""}`;
    peaks[way] *= 0.7;
  }
}
setInterval(meters, 100);

function draw(analyser) {
  const canvas = $("spectrogram"), paint = canvas.getContext("2d"), bins = new Uint8Array(analyser.frequencyBinCount);
  const shown = Math.min(bins.length, Math.floor(8000 / (context.sampleRate / 2) * bins.length));
  const wave = new Float32Array(analyser.fftSize);
  let told = 0;
  const frame = () => {
    if (!context) return;
    analyser.getByteFrequencyData(bins);
    paint.drawImage(canvas, -1, 0);
    for (let y = 0; y < canvas.height; y++) {
      const level = bins[Math.floor((1 - y / canvas.height) * (shown - 1))];
      paint.fillStyle = `hsl(${250 - level * 0.75} 80% ${8 + level * 0.28}%)`;
      paint.fillRect(canvas.width - 1, y, 1, 1);
    }
    analyser.getFloatTimeDomainData(wave);
    const hertz = pitchOf(wave, context.sampleRate);
    if (hertz) {
      paint.fillStyle = "#fff";
      paint.fillRect(canvas.width - 2, Math.round((1 - Math.log2(hertz / 50) / 4) * (canvas.height - 2)), 2, 2);
    }
    told = (told + 1) % 15;
    if (told === 0) $("pitch").textContent = hertz ? `${hertz.toFixed(0)} Hz` : "none";
    requestAnimationFrame(frame);
  };
  frame();
}

// Pitch of a stretch from 50 to 800 Hz by normalised autocorrelation; 0 where it is not voiced.
function pitchOf(wave, rate) {
  const step = Math.max(1, Math.floor(rate / 12000)), n = Math.floor(wave.length / step), x = new Float32Array(n);
  for (let i = 0; i < n; i++) for (let k = 0; k < step; k++) x[i] += wave[i * step + k] / step;
  const low = Math.floor(rate / step / 800), high = Math.min(Math.ceil(rate / step / 50), Math.floor(n / 2));
  const span = n - high, like = new Float32Array(high + 2);
  let own = 0;
  for (let i = 0; i < span; i++) own += x[i] * x[i];
  if (own / span < 1e-6) return 0;
  for (let lag = low - 1; lag <= high; lag++) {
    let both = 0, other = 0;
    for (let i = 0; i < span; i++) { both += x[i] * x[i + lag]; other += x[i + lag] * x[i + lag]; }
    like[lag] = both / Math.sqrt(own * other + 1e-12);
  }
  let best = 0;
  for (let lag = low; lag < high; lag++) if (like[lag] >= like[lag - 1] && like[lag] >= like[lag + 1]) best = Math.max(best, like[lag]);
  if (best < 0.75) return 0;
  // The first peak that is nearly the best: a multiple of the period is as good.
  for (let lag = low; lag < high; lag++) {
    if (like[lag] < 0.9 * best || like[lag] < like[lag - 1] || like[lag] < like[lag + 1]) continue;
    const bend = like[lag - 1] - 2 * like[lag] + like[lag + 1];
    return rate / step / (lag + (bend ? (like[lag - 1] - like[lag + 1]) / (2 * bend) : 0));
  }
  return 0;
}

function wav(parts, rate) {
  const frames = parts.reduce((n, p) => n + p.length, 0), view = new DataView(new ArrayBuffer(44 + 2 * frames));
  const text = (at, s) => { for (let i = 0; i < s.length; i++) view.setUint8(at + i, s.charCodeAt(i)); };
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * frames, true); text(8, "WAVEfmt "); view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); view.setUint16(22, 1, true); view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * frames, true);
  let at = 44;
  for (const part of parts) for (const x of part) { view.setInt16(at, 32767 * Math.max(-1, Math.min(1, x)), true); at += 2; }
  return new Blob([view], { type: "audio/wav" });
}

async function build(blob, name) {
  say(`Making a voice of ${name} …`);
  const answer = await fetch(`/voice?name=${encodeURIComponent(name)}`, { method: "POST", body: blob });
  const told = await answer.json().catch(() => ({ error: "the server did not answer" }));
  if (told.error) { say(told.error, true); return; }
  $("voice").replaceChildren(...told.voices.map((v) => new Option(v, v, false, v === told.name)));
  send({ voice: told.name });
  say(told.warnings.length ? `The voice is there, but ${told.warnings.join("; ")}.` : "The voice is there, and you speak in it.", told.warnings.length > 0);
}

function toggle(button, on, names) {
  button.setAttribute("aria-pressed", String(on));
  button.textContent = names[on ? 1 : 0];
}

function turn(on) {
  dry = on;
  toggle($("dry"), dry, ["Hear your own voice (D)", "Hear the other voice (D)"]);
  send({ dry });
}

$("through").onchange = async () => {
  const on = $("through").value === "card";
  for (const label of document.querySelectorAll("label.card")) label.hidden = !on;
  $("spectrogram").hidden = on;
  $("pitch").parentElement.hidden = on;
  $("h-way").textContent = on ? "held for computing" : "to the server and back, constant";
  $("h-device").textContent = on ? "the devices, as they say" : "the browser's output, as it says";
  if (!on) return;
  const answer = await fetch("/devices");
  const told = await answer.json().catch(() => ({ error: "the server did not answer" }));
  if (told.error) { say(told.error, true); return; }
  for (const [id, list] of [["card-in", told.inputs], ["card-out", told.outputs]]) {
    $(id).replaceChildren($(id).options[0], ...list.map(([number, name]) => new Option(name, number)));
  }
  if (!told.inputs.length || !told.outputs.length) say("There is no sound card here with an input and an output.", true);
};
let starting = false;
$("start").onclick = async () => {
  if (starting) return;
  if (asleep()) { await context.resume(); say(HEARD); return; }
  if (context || card) { stop(); return; }
  starting = true;
  await start();
  starting = false;
};
$("dry").onclick = () => turn(!dry);
$("record").onclick = () => {
  if (!recording) { recording = []; toggle($("record"), true, ["", "Stop recording (R)"]); return; }
  const link = $("saved");
  link.href = URL.createObjectURL(wav(recording, context.sampleRate));
  link.download = "synthetic-voice.wav";
  link.hidden = false;
  $("play").src = link.href;
  $("play").hidden = false;
  recording = null;
  toggle($("record"), false, ["Record (R)", ""]);
};
if ($("voice")) {
  $("voice").onchange = () => send({ voice: $("voice").value });
  const take = (files) => { if (files[0]) build(files[0], files[0].name.replace(/\.[^.]*$/, "")); };
  $("file").onchange = () => take($("file").files);
  // A file may be dropped anywhere: the browser would leave the page for it.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files); });
  $("make").onclick = async () => {
    if (!reference) { reference = []; toggle($("make"), true, ["", "Stop: make the voice"]); return; }
    const parts = reference;
    reference = null;
    toggle($("make"), false, ["Speak a reference, 5 s or more", ""]);
    await build(wav(parts, context.sampleRate), "spoken here");
  };
}
// A slider's value with its unit, to be read and to be said.
function showValue(slider) {
  const text = `${slider.value} ${slider.dataset.unit}`.trim();
  slider.nextElementSibling.textContent = text;
  slider.setAttribute("aria-valuetext", text);
}
for (const slider of document.querySelectorAll("input[data-control]")) {
  showValue(slider);
  slider.oninput = () => {
    showValue(slider);
    send({ set: { [slider.dataset.control]: +slider.value } });
  };
}
let presets = JSON.parse($("presets").textContent);
const values = () => Object.fromEntries([...document.querySelectorAll("input[data-control]")].map((s) => [s.dataset.control, +s.value]));
async function preset(method, name, body) {
  const answer = await fetch(`/preset?name=${encodeURIComponent(name)}`, { method, body: body && JSON.stringify(body) });
  const told = await answer.json().catch(() => ({ error: "the server did not answer" }));
  if (told.error) { say(told.error, true); return; }
  presets = told.presets;
  const kept = name in presets ? name : "";
  $("preset").replaceChildren(new Option("none", ""), ...Object.keys(presets).map((p) => new Option(p, p, false, p === kept)));
}
$("preset").onchange = () => {
  const one = presets[$("preset").value];
  if (!one) return;
  $("preset-name").value = $("preset").value;
  for (const slider of document.querySelectorAll("input[data-control]")) {
    if (!(slider.dataset.control in one.set)) continue;
    slider.value = one.set[slider.dataset.control];
    showValue(slider);
  }
  const known = $("voice") && [...$("voice").options].some((o) => o.value === one.voice);
  if (known) $("voice").value = one.voice;
  else if (one.voice) say(`The voice ${one.voice} is not here any longer: the preset's controls are taken.`, true);
  send(known ? { voice: one.voice, set: values() } : { set: values() });
};
$("preset-save").onclick = () => preset("POST", $("preset-name").value, { voice: $("voice") ? $("voice").value : null, set: values() });
$("preset-remove").onclick = () => { if ($("preset").value) preset("DELETE", $("preset").value); };
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input:not([type=range]), select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "d" || event.key === "D") turn(!dry);
  if ((event.key === "r" || event.key === "R") && !$("record").disabled) $("record").click();
});
