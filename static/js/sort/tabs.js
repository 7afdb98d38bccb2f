// Other tabs of this browser with the same classifier: each tells the others that it changed something.

const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("lora-recycle") : null;

export function tellOthers(classifier, revision) {
  channel?.postMessage({ classifier, revision });
}

// Until `signal` ends it.
export function hearOthers(classifier, changed, signal) {
  channel?.addEventListener(
    "message",
    ({ data }) => {
      if (data.classifier === classifier) changed(data.revision);
    },
    { signal },
  );
}
