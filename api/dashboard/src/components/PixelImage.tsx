import { useEffect, useLayoutEffect, useRef, useState } from "react";

import { send } from "../api/client";

const MOST_KEPT = 400;
const kept = new Map<string, Promise<string>>();

/** The picture behind a path of the API as a blob URL; pictures never change, so each is fetched once. */
function fetchPicture(path: string): Promise<string> {
  const known = kept.get(path);
  if (known) return known;
  const made = send(path).then(async (response) => URL.createObjectURL(await response.blob()));
  made.catch(() => kept.delete(path));
  kept.set(path, made);
  if (kept.size > MOST_KEPT) {
    const [oldest, url] = kept.entries().next().value ?? [];
    if (oldest !== undefined) kept.delete(oldest);
    void url?.then((u) => URL.revokeObjectURL(u));
  }
  return made;
}

interface Props {
  path: string;
  alt: string;
  /** Widest that one picture pixel may become. */
  zoom?: number;
}

/** A picture grid, drawn with whole screen pixels per picture pixel as long as it is small. */
export function PixelImage({ path, alt, zoom = 8 }: Props) {
  const [url, setUrl] = useState<string | null>(null);
  const [failed, setFailed] = useState(false);
  const [natural, setNatural] = useState(0);
  const [room, setRoom] = useState(0);
  const box = useRef<HTMLSpanElement>(null);

  useEffect(() => {
    let alive = true;
    setFailed(false);
    fetchPicture(path).then(
      (made) => alive && setUrl(made),
      () => alive && setFailed(true),
    );
    return () => void (alive = false);
  }, [path]);

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const observer = new ResizeObserver(() => setRoom(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const ratio = window.devicePixelRatio || 1;
  const scale = natural ? Math.min(zoom, Math.floor((room / natural) * ratio) / ratio) : 0;
  const crisp = scale >= 1;
  return (
    <span className="pixels" ref={box}>
      {failed && <span className="small wrong">This picture could not be loaded.</span>}
      {!failed && url === null && <span className="wait" />}
      {!failed && url !== null && (
        <img src={url} alt={alt} className={crisp ? "crisp" : ""}
          style={{ width: crisp ? natural * scale : "100%", visibility: natural ? "visible" : "hidden" }}
          onLoad={(event) => setNatural(event.currentTarget.naturalWidth)} />
      )}
    </span>
  );
}
