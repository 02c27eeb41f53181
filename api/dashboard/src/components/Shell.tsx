import { useEffect, useRef } from "react";
import type { ReactNode } from "react";

import { askForKey } from "../api/key";
import { Link, usePath } from "../router";
import { toggleTheme, useTheme } from "../theme";
import { KeyIcon, MoonIcon, PlusIcon, SunIcon } from "./icons";
import { KeyDialog } from "./KeyDialog";
import { Logo } from "./Logo";

const SECTIONS = [
  ["/jobs", "Jobs"],
  ["/students", "Students"],
  ["/endpoints", "Endpoints"],
  ["/playground", "Playground"],
  ["/methods", "Methods"],
  ["/teachers", "Teachers"],
  ["/datasets", "Datasets"],
  ["/webhooks", "Webhooks"],
] as const;

export function Shell({ children }: { children: ReactNode }) {
  const path = usePath();
  const theme = useTheme();
  const nav = useRef<HTMLElement>(null);
  useEffect(() => {
    const current = nav.current?.querySelector<HTMLElement>("[aria-current]");
    if (nav.current && current) nav.current.scrollLeft = current.offsetLeft - nav.current.offsetLeft - 40;
  }, [path]);
  return (
    <>
      <header className="bar">
        <Link href="/jobs" className="wordmark">
          <Logo />
          Fewstep
        </Link>
        <nav className="nav" aria-label="Main" ref={nav}>
          {SECTIONS.map(([href, text]) => (
            <Link key={href} href={href} aria-current={path.startsWith(href) || (path === "/" && href === "/jobs") ? "page" : undefined}>
              {text}
            </Link>
          ))}
        </nav>
        <div className="bar-tools">
          <button type="button" className="button bare square" aria-label="Change the API key" onClick={askForKey}>
            <KeyIcon />
          </button>
          <button type="button" className="button bare square" onClick={toggleTheme}
            aria-label={theme === "dark" ? "Use the light theme" : "Use the dark theme"}>
            {theme === "dark" ? <SunIcon /> : <MoonIcon />}
          </button>
          <Link href="/jobs/new" className="button primary">
            <PlusIcon />
            New job
          </Link>
        </div>
      </header>
      <main>{children}</main>
      <KeyDialog />
    </>
  );
}
