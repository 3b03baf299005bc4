# Where the cursor goes, above all at the edges.
printf '\033[2J\033[1;80Hx'; step
printf 'y'; step
printf '\033[3;80Hx\bz'; step
printf '\033[4;80Hx\rstart'; step
printf '\033[5;80Hx\033[Kq'; step
printf '\033[99;99Hcorner\033[A\033[3Dup'; step
printf '\033[10;10H\033[5C>\033[9D<\033[2B^\033[4Av\033[E1\033[2F2\033[40G3\033[12d4'; step
printf '\ta\tb\t\tc\r\n'; step
printf '\033[8;75H\ttabbed'; step
printf '\033[15;1H\b\b\bback'; step
printf '\033[?25l'; step
printf '\033[?25h\033[3 q'; step
printf '\033[22;80Hlast cell and on'; step
printf '\033[0;0Hhome \033[-1;3x odd \033[999999999999Cfar'; step
