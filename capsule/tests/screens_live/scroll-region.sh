# Regions, and everything that moves lines within them.
printf '\033[2J\033[H'; i=1; while [ $i -le 22 ]; do printf '\033[%d;1Hline %d \033[3%dmcolour\033[m' $i $i $((i % 8)); i=$((i + 1)); done; step
printf '\033[5;15r\033[15;1H'; for letter in a b c d; do printf "\n\033[44mnew %s\033[m" $letter; done; step
printf '\033[5;1H\033M\033M\033[7mabove\033[m'; step
printf '\033[8;1H\033[3L\033[42minserted\033[m'; step
printf '\033[10;1H\033[2M'; step
printf '\033[3S'; step
printf '\033[2T'; step
printf '\033[?6h\033[1;1Horigin\033[99;1Hbottom of the region'; step
printf '\033[?6l\033[1;1Hhome'; step
printf '\033[18;1Hbelow the region\n\n\n\n\n\nmore'; step
printf '\033[r\033[22;1H\n\n\nfree again'; step
printf '\033[2;21r\033[2;1H\033M\033M\033M'; step
printf '\033[21;1H\n\n\033[48;2;10;60;90m\n\n\033[m'; step
