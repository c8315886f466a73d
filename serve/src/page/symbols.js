// The names of TeX's signs, and what each stands for.

const table = (text) => text.trim().split(/\s+/).map((pair) => pair.split("="));

// Letters and signs that are read as letters.
export const LETTERS = new Map(table(`
alpha=α beta=β gamma=γ delta=δ epsilon=ϵ varepsilon=ε zeta=ζ eta=η theta=θ vartheta=ϑ iota=ι kappa=κ lambda=λ mu=μ nu=ν xi=ξ omicron=ο
pi=π varpi=ϖ rho=ρ varrho=ϱ sigma=σ varsigma=ς tau=τ upsilon=υ phi=ϕ varphi=φ chi=χ psi=ψ omega=ω Gamma=Γ Delta=Δ Theta=Θ Lambda=Λ Xi=Ξ
Pi=Π Sigma=Σ Upsilon=Υ Phi=Φ Psi=Ψ Omega=Ω infty=∞ partial=∂ nabla=∇ hbar=ℏ ell=ℓ Re=ℜ Im=ℑ aleph=ℵ emptyset=∅ varnothing=∅ angle=∠
degree=° imath=ı jmath=ȷ wp=℘ top=⊤ bot=⊥ checkmark=✓ dagger=† square=□ blacksquare=■ triangle=△
`));

// Between two things, or before one.
export const SIGNS = new Map(table(`
cdot=⋅ times=× div=÷ pm=± mp=∓ ast=∗ star=⋆ circ=∘ bullet=∙ oplus=⊕ ominus=⊖ otimes=⊗ odot=⊙ setminus=∖ cup=∪ cap=∩ sqcup=⊔ vee=∨ lor=∨
wedge=∧ land=∧ neg=¬ lnot=¬ forall=∀ exists=∃ nexists=∄ leq=≤ le=≤ geq=≥ ge=≥ leqslant=⩽ geqslant=⩾ ll=≪ gg=≫ neq=≠ ne=≠ approx=≈
equiv=≡ sim=∼ simeq=≃ cong=≅ propto=∝ prec=≺ succ=≻ in=∈ notin=∉ ni=∋ subset=⊂ subseteq=⊆ subsetneq=⊊ supset=⊃ supseteq=⊇ perp=⟂ parallel=∥ mid=∣ nmid=∤
vdash=⊢ models=⊨ to=→ rightarrow=→ leftarrow=← gets=← leftrightarrow=↔ Rightarrow=⇒ Leftarrow=⇐ Leftrightarrow=⇔ implies=⟹ impliedby=⟸
iff=⟺ mapsto=↦ longrightarrow=⟶ longleftarrow=⟵ Longrightarrow=⟹ uparrow=↑ downarrow=↓ hookrightarrow=↪ rightharpoonup=⇀ leadsto=⇝ coloneqq=≔
therefore=∴ because=∵ ldots=… dots=… dotsc=… cdots=⋯ dotsb=⋯ vdots=⋮ ddots=⋱ prime=′ colon=: lt=< gt=> backslash=\\ surd=√
`));

export const FENCES = new Map(table(`
lbrace={ rbrace=} langle=⟨ rangle=⟩ lfloor=⌊ rfloor=⌋ lceil=⌈ rceil=⌉ vert=| lvert=| rvert=| Vert=‖ lVert=‖ rVert=‖ lbrack=[ rbrack=]
`));

// Large signs, which have limits above and below them.
export const LARGE = new Map(table("sum=∑ prod=∏ coprod=∐ bigcup=⋃ bigcap=⋂ bigoplus=⨁ bigotimes=⨂ bigvee=⋁ bigwedge=⋀"));
export const INTEGRALS = new Map(table("int=∫ iint=∬ iiint=∭ oint=∮"));

export const FUNCTIONS = new Set("sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan log ln lg exp arg dim ker deg hom".split(" "));
export const LIMITS = new Map(table("lim=lim max=max min=min sup=sup inf=inf det=det gcd=gcd Pr=Pr limsup=lim\u00a0sup liminf=lim\u00a0inf argmax=arg\u00a0max argmin=arg\u00a0min"
  .replaceAll("\u00a0", "~")).map(([name, text]) => [name, text.replace("~", "\u00a0")]));

export const ACCENTS = new Map(table(`
hat=^ widehat=^ bar=¯ overline=¯ vec=→ overrightarrow=→ dot=˙ ddot=¨ tilde=~ widetilde=~ check=ˇ breve=˘ acute=´ grave=\` mathring=˚ overbrace=⏞
`));
export const BELOW = new Map(table("underline=_ underbrace=⏟"));

// In em.
export const SPACES = new Map([[",", 0.17], [":", 0.22], [">", 0.22], [";", 0.28], ["!", -0.17], [" ", 0.33], ["quad", 1], ["qquad", 2], ["enspace", 0.5], ["thinspace", 0.17]]);

// Letters of other kinds: where A, a and 0 are in Unicode, and which of them lie elsewhere.
const KINDS = {
  __proto__: null,
  mathbf: [0x1d400, 0x1d41a, 0x1d7ce, {}],
  mathbb: [0x1d538, 0x1d552, 0x1d7d8, { C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ" }],
  mathcal: [0x1d49c, 0x1d4b6, 0, { B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ", e: "ℯ", g: "ℊ", o: "ℴ" }],
  mathfrak: [0x1d504, 0x1d51e, 0, { C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ" }],
  mathsf: [0x1d5a0, 0x1d5ba, 0x1d7e2, {}],
  mathtt: [0x1d670, 0x1d68a, 0x1d7f6, {}],
};
const SAME = { __proto__: null, mathscr: "mathcal", boldsymbol: "mathbf", bm: "mathbf", mathbold: "mathbf" };

export const isKind = (name) => name in KINDS || name in SAME;
export const letter = (c, name) => {
  const [upper, lower, digit, others] = KINDS[SAME[name] ?? name];
  if (c in others) return others[c];
  const at = c.codePointAt(0);
  if (c >= "A" && c <= "Z") return String.fromCodePoint(upper + at - 65);
  if (c >= "a" && c <= "z") return String.fromCodePoint(lower + at - 97);
  if (digit && c >= "0" && c <= "9") return String.fromCodePoint(digit + at - 48);
  return c;
};
